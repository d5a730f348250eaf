"""DRSAN in JAX, with the variables of a checkpoint: the blocks of model.py and ops.py, to 1e-5."""
import functools

from model import MODELS, SCALES
from ops import UPSAMPLING

import jax
import jax.numpy as jnp
from jax import lax


class Layers(object):
    """The layers of one DRSAN, which take their variables in the order of creation.

    variable: a function from a name and a shape to a variable's value. dtype: of the blocks' convolutions and
    the features between them; sums, pooling and sigmoids are float32.
    """

    def __init__(self, variable, dtype):
        self.variable, self.dtype, self.convolutions = variable, dtype, 0

    def conv2d(self, x, filters, size):
        name = "DRAN/conv2d_%d" % self.convolutions if self.convolutions else "DRAN/conv2d"
        self.convolutions += 1
        kernel = self.variable(name + "/kernel", (size, size, x.shape[3], filters)).astype(x.dtype)
        bias = self.variable(name + "/bias", (filters,)).astype(x.dtype)
        return bias + lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def prelu(self, x, name):
        return jnp.where(x > 0, x, self.variable("DRAN/" + name, x.shape[3:]).astype(x.dtype) * x)

    def drag(self, x, blocks, k):
        paths = blocks * (blocks + 1) // 2
        r = self.conv2d(self.prelu(self.conv2d(x, 16, 1), "conv_block%dprelualpha" % k), paths, 1)
        dra = jnp.mean(r.astype(jnp.float32), (1, 2), keepdims=True)  # [N, 1, 1, paths]
        features = [x]
        for n in range(1, blocks + 1):
            y, first = features[-1], n * (n - 1) // 2
            for j in 2 * n - 1, 2 * n:
                y = self.conv2d(self.prelu(y, "conv_block%d_pReLU_%dalpha" % (k, j)), x.shape[3], 3)
            features.append(self.drsa(y, features, dra[..., first:first + n]))
        return self.conv2d(jnp.concatenate(features, 3), x.shape[3], 1)

    def drsa(self, y, features, dra):
        y = y.astype(jnp.float32)
        attended = [r * feature for r, feature in zip(jnp.split(dra, len(features), 3), features)]
        return (sum(attended, y) * jax.nn.sigmoid(y)).astype(self.dtype)


def depth_to_space(x, factor):
    """[N, H, W, C] -> [N, factor H, factor W, C / factor^2], with channels in TensorFlow's order."""
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, factor, factor, c // factor ** 2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, factor * h, factor * w, c // factor ** 2)


def jax_drsan(variable, lr, model, scale, dtype=jnp.float32):
    """DRSAN `model` for `scale`, keys of MODELS and SCALES. variable, dtype: see Layers.

    lr: float32 RGB in [0, 1], [N, H, W, 3]. Returns SR, float32 [N, s H, s W, 3], not clipped.
    """
    (channels, drags, blocks), layers = MODELS[model], Layers(variable, dtype)
    x0 = layers.conv2d(lr, channels, 3)
    x = x0.astype(dtype)
    for k in range(1, drags + 1):
        x = layers.drag(x, blocks, k)
    x = (layers.conv2d(x, channels, 3) + x0).astype(dtype)
    for factor in UPSAMPLING[SCALES[scale]]:
        x = depth_to_space(layers.conv2d(x, channels * factor ** 2, 3), factor)
    return layers.conv2d(x.astype(jnp.float32), 3, 3)


def apply_drsan(weights, lr, model, scale, dtype=jnp.float32):
    """As jax_drsan(), with weights, {name: float32 array}."""
    return jax_drsan(lambda name, _: weights[name], lr, model, scale, dtype)


def variable_shapes(model, scale):
    """{name: shape} of the variables, in order of creation."""
    shapes = {}

    def variable(name, shape):
        return jnp.zeros(shapes.setdefault(name, shape))
    jax.eval_shape(lambda lr: jax_drsan(variable, lr, model, scale), jnp.zeros([1, 8, 8, 3]))
    return shapes


@functools.partial(jax.jit, static_argnums=(2, 3))
def apply_to_uint8(weights, lr, model, scale):
    """SR in [0, 255], not clipped, of a uint8 batch, in float32."""
    with jax.default_matmul_precision("float32"):
        return 255 * apply_drsan(weights, lr.astype(jnp.float32) / 255, model, scale)
