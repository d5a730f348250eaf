"""Train an exported graph with JAX: python tools/gpu/train_jax.py --graph runs/graphs/32s_x2.json --data runs/tiles

TensorFlow is not needed: jax, numpy, scipy, pillow and tqdm are. A run lives in runs/jax_<model>_<scale>: log.jsonl,
and state.npz (weights, optimizer, averages, step, random key and config), from which the same command resumes. For several
models at once start several processes, each with XLA_PYTHON_CLIENT_PREALLOCATE=false.
"""
import argparse
import concurrent.futures
import functools
import json
import os
import signal
import sys
import time
import zipfile
from collections import namedtuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from tools.command import UserError, cpu_count, not_negative, positive, run_main
from tools.data.pack_tiles import decode, read_files
from tools.data.patches import detail
from tools.files import write_npz
from tools.gpu.jax_graph import absolute, execute, load_graph
from tools.training.history import check_same_config, divergence, format_progress, resume_log
from tools.training.recipes import (MAX_LOSS, MAX_SKIPPED, MOMENTUM, NORMS, UPDATE_RMS, add_recipe_options, choose_recipe,
                                    learning_rate, orthogonalize, uses_muon)
from utils import crop_to_multiple, downscale, psnr_y, to_uint8

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# ------------------------------------------------------------------------------------------------------------ data

Tiles = namedtuple("Tiles", "lr hr ends columns")


def load_pairs(folder, factor, workers):
    """[(LR, HR)] of all images in a folder of parts or images, uint8 RGB, LR made by imresize. Raises UserError."""
    def load(file):
        hr = crop_to_multiple(decode(*file), factor)
        return downscale(hr, factor), hr
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return list(pool.map(load, read_files(folder)))


def stack_tiles(pairs, patch):
    """Tiles of (LR, HR) pairs in device memory; raises UserError if none holds a patch of `patch` LR pixels a side.

    lr, hr: uint8, padded to one size. ends: int32 [tiles], the number of positions of a patch in this tile and those
    before it; columns: int32 [tiles], those in one row. Both are of the true sizes: padding is never drawn.
    """
    usable = [pair for pair in pairs if min(pair[0].shape[:2]) >= patch]
    if len(usable) < len(pairs):
        print("left out: %d tiles smaller than a patch of %d LR pixels" % (len(pairs) - len(usable), patch))
    if not usable:
        raise UserError("no tile is as large as a patch of %d LR pixels" % patch)

    def stack(images):
        height, width = np.max([image.shape[:2] for image in images], axis=0)
        stacked = np.zeros([len(images), height, width, 3], np.uint8)
        for padded, image in zip(stacked, images):
            padded[:image.shape[0], :image.shape[1]] = image
        return jnp.asarray(stacked)

    rows, columns = np.array([lr.shape[:2] for lr, _ in usable]).T - patch + 1
    ends = np.cumsum(rows.astype(np.int64) * columns)
    if ends[-1] >= 2 ** 31:
        raise UserError("too many tiles: %d positions of a patch, at most 2^31 - 1 can be numbered" % ends[-1])
    return Tiles(stack([lr for lr, _ in usable]), stack([hr for _, hr in usable]), jnp.asarray(ends, jnp.int32),
                 jnp.asarray(columns, jnp.int32))


Patches = namedtuple("Patches", "tile y x turn")  # int32 [batch] each; y and x in LR pixels; turn: 3 bits


def draw_patches(key, tiles, batch):
    """Random Patches: uniform over all positions in all tiles, and over the 8 flips and rotations."""
    position_key, turn_key = jax.random.split(key)
    position = jax.random.randint(position_key, [batch], 0, tiles.ends[-1])
    tile = jnp.searchsorted(tiles.ends, position, side="right", method="compare_all")
    offset = position - jnp.where(tile > 0, tiles.ends[tile - 1], 0)
    return Patches(tile, offset // tiles.columns[tile], offset % tiles.columns[tile],
                   jax.random.randint(turn_key, [batch], 0, 8))


def draw_detailed_patches(key, tiles, batch, patch, candidates):
    """Patches with the most detail of so many candidates each, as patches.Sampler takes them."""
    patches = draw_patches(key, tiles, candidates * batch)
    if candidates == 1:
        return patches
    details = detail(cut(tiles.lr, patches, patch, 1).astype(jnp.float32), jnp).reshape(batch, candidates)
    best = candidates * jnp.arange(batch) + details.argmax(axis=1)
    return Patches(*[values[best] for values in patches])


def cut(images, patches, patch, factor):
    """The pixels of some Patches in the LR images of Tiles (factor 1) or in the HR images (the factor of the scale), not turned."""
    size = 1, factor * patch, factor * patch, 3
    return jax.vmap(lambda tile, y, x: lax.dynamic_slice(images, (tile, factor * y, factor * x, 0), size)[0])(
        patches.tile, patches.y, patches.x)


def cut_patches(tiles, patches, patch, factor):
    """The batch of some Patches: LR [batch, p, p, 3] and HR [batch, s p, s p, 3], uint8."""
    turn, batches = patches.turn[:, None, None, None], []
    for images, times in (tiles.lr, 1), (tiles.hr, factor):
        batch = cut(images, patches, patch, times)
        batch = jnp.where(turn & 1, batch[:, ::-1], batch)
        batch = jnp.where(turn & 2, batch[:, :, ::-1], batch)
        batches.append(jnp.where(turn & 4, batch.swapaxes(1, 2), batch))
    return batches


# -------------------------------------------------------------------------------------------------------- training

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
MOMENT1, MOMENT2, MUON, AVERAGE = SLOTS = "/AdamOptimizer", "/AdamOptimizer_1", "/Muon", "/ExponentialMovingAverage"
PRECISIONS = {  # name -> type of feature maps and convolutions, JAX's precision of float32 convolutions
    "float32": (jnp.float32, "float32"),
    "tf32": (jnp.float32, "tensorfloat32"),
    "bfloat16": (jnp.bfloat16, "bfloat16"),
}


def new_state(weights, recipe, seed):
    """The state of a training before its first step, a dict of arrays named as in a training checkpoint of train.py; beside those,
    the random key, and how many steps have been skipped in a row."""
    state = {"Variable": np.int32(0), "skipped_in_a_row": np.int32(0), "beta1_power": np.float32(BETA1), "beta2_power": np.float32(BETA2),
             "random_key": np.asarray(jax.random.key_data(jax.random.key(seed)))}
    if recipe.skip_above:
        state["gradient_norms"] = np.full([NORMS], np.inf, np.float32)
    for name, value in weights.items():
        state[name] = value
        by_muon = recipe.optimizer == "muon" and uses_muon(value.shape)
        for slot in [MUON] if by_muon else [MOMENT1, MOMENT2]:
            state[name + slot] = np.zeros_like(value)
        if recipe.ema:
            state[name + AVERAGE] = value
    return state


def weight_names(state):
    """The names of the weights in a state."""
    return sorted(name for name in state if name.startswith("DRAN/") and not name.endswith(SLOTS))


def averaged_weights(state):
    """The weights to evaluate, by name: their moving averages if the training keeps them."""
    return {name: state.get(name + AVERAGE, state[name]) for name in weight_names(state)}


def l1_loss(graph, weights, lr, hr, dtype):
    """Mean absolute error over RGB in [0, 1] of uint8 batches."""
    sr = execute(graph, weights, lr.astype(jnp.float32) / 255, dtype)
    return jnp.mean(absolute(hr.astype(jnp.float32) / 255 - sr))


def muon_directions(momenta):
    """Muon's updates for a learning rate of 1, {name: array}, of {name: momentum} of kernels, as ops.muon_step makes them; those
    of one shape together, in few operations."""
    by_shape, directions = {}, {}
    for name, momentum in momenta.items():
        by_shape.setdefault(momentum.shape, []).append(name)
    for shape, names in by_shape.items():
        rows, columns = int(np.prod(shape[:-1])), shape[-1]
        x = jnp.stack([momenta[name].reshape(rows, columns) for name in names])
        x = x / (jnp.linalg.norm(x, axis=(1, 2), keepdims=True) + 1e-12)
        tall = rows > columns
        x = orthogonalize(x.swapaxes(1, 2) if tall else x, lambda a, b, transpose: a @ (b.swapaxes(1, 2) if transpose else b))
        x = UPDATE_RMS * max(rows, columns) ** 0.5 * (x.swapaxes(1, 2) if tall else x)
        directions.update((name, one.reshape(shape)) for name, one in zip(names, x))
    return directions


def update(state, gradients, rate, recipe):
    """The state after a step of Adam by TensorFlow's formula (epsilon outside the bias correction), of Muon for the kernels that
    have its momentum, with decoupled weight decay, and with an `ema` of the moving averages, whose decay is at most (1 + step) / (10 + step)."""
    step = state["Variable"] + 1
    adam_rate = rate * jnp.sqrt(1 - state["beta2_power"]) / (1 - state["beta1_power"])
    ema = jnp.minimum(recipe.ema, (1. + step) / (10. + step))
    state = dict(state, Variable=step,
                 beta1_power=state["beta1_power"] * BETA1, beta2_power=state["beta2_power"] * BETA2)
    momenta = {}
    for name, gradient in gradients.items():
        if name + MUON in state:
            state[name + MUON] = momentum = MOMENTUM * state[name + MUON] + (1 - MOMENTUM) * gradient
            momenta[name] = MOMENTUM * momentum + (1 - MOMENTUM) * gradient
            continue
        m, v = state[name + MOMENT1], state[name + MOMENT2]
        state[name + MOMENT1] = m = m + (gradient - m) * (1 - BETA1)
        state[name + MOMENT2] = v = v + (gradient ** 2 - v) * (1 - BETA2)
        state[name] = state[name] - adam_rate * m / (jnp.sqrt(v) + EPSILON)
    for name, direction in muon_directions(momenta).items():
        state[name] = state[name] - rate * (direction + recipe.decay * state[name])
    if recipe.ema:
        for name in gradients:
            average = state[name + AVERAGE]
            state[name + AVERAGE] = average - (1 - ema) * (average - state[name])
    return state


def guarded_update(state, gradients, loss, rate, recipe):
    """The state after a step that is skipped if it is bad, as ops.is_bad says; the norm of its gradient; and whether it was.

    Once MAX_SKIPPED steps in a row were bad, the state stays as it is.
    """
    norm = jnp.sqrt(sum(jnp.sum(gradient ** 2) for gradient in gradients.values()))
    finite = (loss < MAX_LOSS) & jnp.isfinite(norm)
    bad, noted = ~finite, {}
    if recipe.skip_above:
        norms = state["gradient_norms"]
        bad |= ~(norm <= recipe.skip_above * jnp.sort(norms)[NORMS // 2])
        noted["gradient_norms"] = jnp.where(finite, jnp.append(norms[1:], norm), norms)
    in_a_row = jnp.where(bad, state["skipped_in_a_row"] + 1, 0)
    skipped = dict(state, Variable=state["Variable"] + 1, skipped_in_a_row=in_a_row, **noted)
    updated = dict(update(state, gradients, rate, recipe), skipped_in_a_row=in_a_row, **noted)
    stopped = state["skipped_in_a_row"] >= MAX_SKIPPED
    return {name: jnp.where(stopped, state[name], jnp.where(bad, skipped[name], updated[name])) for name in state}, norm, bad


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def run_steps(graph, recipe, precision, state, tiles, rates):
    """One training step for each of `rates`, all on the device; returns the new state, and the losses, the norms of the gradients
    and whether each step was skipped.

    graph, recipe (a Recipe) and precision (a key of PRECISIONS) are compiled in; the memory of `state` is taken over.
    """
    dtype, convolution = PRECISIONS[precision]
    names = weight_names(state)
    key = jax.random.wrap_key_data(state["random_key"])
    keys = jax.vmap(lambda i: jax.random.fold_in(key, state["Variable"] + i))(jnp.arange(len(rates)))
    patches = jax.vmap(lambda key: draw_detailed_patches(key, tiles, recipe.batch, recipe.patch, recipe.candidates))(
        keys)  # before the loop: few, large kernels

    def step(state, inputs):
        rate, patches = inputs
        lr, hr = cut_patches(tiles, patches, recipe.patch, graph.factor)
        weights = {name: state[name] for name in names}
        loss, gradients = jax.value_and_grad(lambda weights: l1_loss(graph, weights, lr, hr, dtype))(weights)
        state, norm, skipped = guarded_update(state, gradients, loss, rate, recipe)
        return state, (loss, norm, skipped)

    with jax.default_matmul_precision(convolution):
        return lax.scan(step, state, (rates, patches))


@functools.partial(jax.jit, static_argnums=0)
def upscale(graph, weights, lr):
    """SR in [0, 255], not clipped, of a uint8 batch, in float32."""
    with jax.default_matmul_precision("float32"):
        return 255 * execute(graph, weights, lr.astype(jnp.float32) / 255)


def validate(graph, state, pairs):
    """Mean PSNR of Y over (LR, HR) pairs, without a border (see utils.scored_luma)."""
    weights = averaged_weights(state)
    values = []
    for lr, hr in pairs:
        sr = to_uint8(np.asarray(upscale(graph, weights, lr[None])[0]))
        values.append(psnr_y(sr, hr, graph.factor))
    return float(np.mean(values))


# ------------------------------------------------------------------------------------------------------------ runs

NPZ_ERRORS = OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile  # of what is no .npz, a damaged one or one of others


def save_state(path, state, config, trained):
    """Write the state to one .npz, with config, what the run was started with, and trained, how it went, as JSON under these
    names. Raises UserError, and keeps the file that was there, if the weights are not finite."""
    state = jax.device_get(state)
    if not all(np.isfinite(state[name]).all() for name in weight_names(state)):
        raise UserError("the weights are not finite at step %d: lower --rate, in another --run%s" % (
            state["Variable"], "; %s keeps the last good state" % path if os.path.exists(path) else ""))
    write_npz(path, dict(state, config=json.dumps(config, sort_keys=True), trained=json.dumps(trained, sort_keys=True)))


def load_state(path):
    """(state, config, trained) as save_state wrote them. Raises UserError."""
    try:
        with np.load(path) as file:
            state = dict(file)
        return state, json.loads(str(state.pop("config"))), json.loads(str(state.pop("trained")))
    except NPZ_ERRORS as error:
        raise UserError("cannot read the training state %s: %s: copy it anew, or begin again in another --run" % (path, error))


def read_graph_file(path):
    """The Graph in a file by export_graph.py. Raises UserError."""
    try:
        return load_graph(path)
    except (OSError, ValueError, KeyError) as error:
        raise UserError("cannot use the graph %s: %s: write it by export_graph.py" % (path, error))


def read_weights(graph_path):
    """The weights beside a graph, by name. Raises UserError."""
    path = os.path.splitext(graph_path)[0] + ".npz"
    try:
        with np.load(path) as file:
            return dict(file)
    except NPZ_ERRORS as error:
        raise UserError("cannot read the weights %s: %s: write them by export_graph.py" % (path, error))


def open_state(path, graph_path, config, recipe):
    """The state to begin or to go on with, the seconds it was trained, and the config with the history of its weights: `path` if it
    exists, else new from the weights beside the graph.

    Raises UserError if the state was started with another config.
    """
    if os.path.exists(path):
        state, started, trained = load_state(path)
        check_same_config(path, started, config)
        return dict(state, skipped_in_a_row=np.int32(0)), trained["trained_seconds"], dict(
            config, trained_before=started["trained_before"])
    return new_state(read_weights(graph_path), recipe, config["seed"]), 0, config


def give_up(path, step, loss, norm, save):
    """Raise UserError for a training of which MAX_SKIPPED steps in a row were bad, the last one with this loss and norm.

    The state at `path`, if there is one, gets the step reached, so that the same command goes on from its weights with the patches
    that come next; else `save` saves the weights of now.
    """
    if os.path.exists(path):
        kept, config, trained = load_state(path)
        save_state(path, dict(kept, Variable=np.int32(step)), config, trained)
    else:
        save()
    raise divergence(step, loss, norm, path)


def main():
    args, started = parse_args(), time.time()
    graph = read_graph_file(args.graph)
    recipe = choose_recipe(args, graph.model, graph.scale)
    config = dict(recipe._asdict(), model=graph.model, scale=graph.scale, recipe=args.recipe, seed=args.seed,
                  init_from=graph.init_from, trained_before=graph.trained_before)
    run = args.run or os.path.join("runs", "jax_%s_%s" % (graph.model, graph.scale))
    os.makedirs(run, exist_ok=True)
    state_path, log_path = os.path.join(run, "state.npz"), os.path.join(run, "log.jsonl")
    state, seconds, config = open_state(state_path, args.graph, config, recipe)
    step = int(state["Variable"])
    best = max((record["psnr"] for record in resume_log(log_path, step) if "psnr" in record), default=-np.inf)
    if step:
        print("resumed at step %d, best validation PSNR %.3f dB" % (step, best))
    valid = load_pairs(args.valid, graph.factor, args.workers) if args.valid else []
    tiles = stack_tiles(load_pairs(args.data, graph.factor, args.workers), recipe.patch)
    state = jax.device_put(state)
    print("%s; %d tiles, %d MiB on the device; %s; recipe %s: %s" % (
        jax.devices()[0].device_kind, len(tiles.ends), (tiles.lr.nbytes + tiles.hr.nbytes) >> 20, args.precision,
        args.recipe, ", ".join("%s %s" % item for item in recipe._asdict().items())), flush=True)

    def save():
        save_state(state_path, state, config, dict(
            trained_seconds=round(seconds), precision=args.precision, framework="JAX %s" % jax.__version__,
            device=jax.devices()[0].device_kind, data={"folder": args.data, "files": len(tiles.ends)}))

    stop = []
    for number in signal.SIGINT, signal.SIGTERM:
        signal.signal(number, lambda received, _: stop.append(received))
    compiled = {}  # by number of steps
    reserve = 0    # seconds that a dispatch, a validation and saving take
    saved = logged = time.time()
    log = open(log_path, "a", buffering=1)
    while step < recipe.steps and not stop:
        if args.minutes is not None and time.time() + reserve > started + 60 * args.minutes:
            stop.append("time")
            break
        steps = min(args.dispatch, recipe.steps - step)
        rates = np.array([learning_rate(recipe, i) for i in range(step, step + steps)], np.float32)
        arguments = state, tiles, rates
        if steps not in compiled:
            before = time.time()
            compiled[steps] = run_steps.lower(graph, recipe, args.precision, *arguments).compile()
            print("compiled in %.1f s" % (time.time() - before), flush=True)
            logged = time.time()
        before = time.time()
        state, values = compiled[steps](*arguments)
        losses, norms, skipped = map(np.asarray, values)
        after = time.time()
        seconds += after - before
        if state["skipped_in_a_row"] >= MAX_SKIPPED:
            reached = int(state["Variable"])
            give_up(state_path, reached, losses[reached - step - 1], norms[reached - step - 1], save)
        loss = float(np.mean(losses[~skipped])) if not skipped.all() else np.nan
        waited = 1 - (after - before) / (after - logged)
        images = steps * recipe.batch / (after - logged)
        logged, begun = after, step
        step += steps
        record = dict(step=step, rate=float("%.4g" % rates[-1]), precision=args.precision, skipped=int(skipped.sum()),
                      images_per_second=round(images, 2), data_wait=round(waited, 4), time=round(after, 1))
        if not skipped.all():
            record.update(loss=round(loss, 6), gradient_norm=float("%.4g" % np.median(norms[~skipped])))
        print(format_progress(step, recipe, loss, rates[-1], images, waited, skipped.sum()), flush=True)
        if valid and (step // args.valid_every > begun // args.valid_every or step == recipe.steps):
            value = validate(graph, state, valid)
            best = max(best, value)
            record["psnr"] = round(value, 4)
            print("step %7d  PSNR of %s %.3f dB, best %.3f dB" % (step, args.valid, value, best), flush=True)
        log.write(json.dumps(record, sort_keys=True) + "\n")
        if time.time() - saved > 60 * args.save_minutes and not skipped[-1]:
            save()
            saved = time.time()
        reserve = max(reserve, time.time() - before)
        logged = time.time()
    save()
    print("stopped at step %d; the same command resumes" % step if stop else "done: %s" % state_path)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graph", required=True, metavar="JSON", help="by export_graph.py, with its .npz beside it")
    parser.add_argument("--data", required=True, metavar="DIR", help="parts by pack_tiles.py, or images")
    parser.add_argument("--valid", metavar="DIR", help="held-out images in the same form; each size is compiled once")
    parser.add_argument("--run", metavar="DIR", help="default runs/jax_<model>_<scale>")
    add_recipe_options(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="float32", choices=list(PRECISIONS), help="of convolutions")
    parser.add_argument("--minutes", type=not_negative(float), help="stop in time to end within so many minutes")
    parser.add_argument("--dispatch", type=positive(int), default=200, metavar="STEPS",
                        help="run on the device without a pause, then a line of log; --steps should be a multiple")
    parser.add_argument("--valid-every", type=positive(int), default=5000, metavar="STEPS")
    parser.add_argument("--save-minutes", type=not_negative(float), default=2)
    parser.add_argument("--workers", type=positive(int), default=cpu_count(), help="threads that read images")
    return parser.parse_args()


if __name__ == "__main__":
    run_main(main)
