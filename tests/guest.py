"""A program of somebody else's, which upscales beside what it does with TensorFlow 2, threads and processes.

Usage: guest.py ROOT. ROOT is the folder of DRSAN. Ends with "a good guest" and exit status 0.
"""
import concurrent.futures
import os
import sys
import threading

ROOT = sys.argv[1]
os.environ["CUDA_VISIBLE_DEVICES"] = ""
lines, done = 0, threading.Event()


def log():
    global lines
    while not done.wait(0.01):
        sys.stderr.write("line %d\n" % lines)  # print() writes the end of a line apart
        lines += 1


thread = threading.Thread(target=log)
thread.start()
try:
    import numpy as np
    import tensorflow as tf
    from PIL import Image

    before = dict(os.environ)
    sys.path.insert(0, ROOT)
    from tools.network import load_model
    from tools.pictures import tiles

    tiles.COMPILED_FROM = 9000
    picture = np.random.RandomState(0).randint(256, size=(20, 24, 3)).astype(np.uint8)
    with load_model(gpu="cpu") as first, load_model("32s", 2, gpu=1) as second:
        placed = [{node.device for node in model.session.graph.as_graph_def().node if node.op == "Conv2D"}
                  for model in (first, second)]
        assert placed == [{""}, {"/device:GPU:1"}], placed  # which takes the CPU where there is none
        sr = first.upscale(picture)
        assert sr.shape == (40, 48, 3) and sr.dtype == np.uint8
        np.testing.assert_array_equal(second.upscale(Image.fromarray(picture)), sr)
        for mode in "P", "YCbCr", "HSV", "LAB", "CMYK", "1", "RGBA":
            source = Image.fromarray(picture)
            try:
                first.upscale(Image.new(mode, (9, 9)) if mode == "LAB" else source.convert(mode))
            except ValueError as error:
                assert mode in str(error)
            else:
                raise AssertionError(mode)
        for options in {"precision": "float16"}, {"scale": "x5"}, {"model": "32x"}:
            try:
                load_model(**options)
            except ValueError as error:
                assert list(options.values())[0] in str(error)
            else:
                raise AssertionError(options)

        if hasattr(tf, "__version__") and not tf.__version__.startswith("1."):
            assert tf.executing_eagerly() and (tf.constant(2) + 3).numpy() == 5
            assert [int(x) for x in tf.data.Dataset.range(3)] == [0, 1, 2]
            variable = tf.Variable(1.0)
            with tf.GradientTape() as tape:
                loss = variable ** 2
            assert tape.gradient(loss, variable).numpy() == 2
            dense = tf.keras.layers.Dense(1)
            assert dense(np.ones([2, 3], np.float32)).numpy().shape == (2, 1)
            import matplotlib
            assert matplotlib.__version__

        large = np.random.RandomState(1).randint(256, size=(90, 100, 3)).astype(np.uint8)  # is compiled
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            results = list(pool.map(first.upscale, [large] * 2 + [picture] * 4))
        np.testing.assert_array_equal(*results[:2])
        for result in results[2:]:
            np.testing.assert_array_equal(result, sr)

        child = os.fork()
        if child == 0:
            try:
                first.upscale(picture)
            except Exception as error:
                os._exit(7 if "fork" in str(error) else 1)
            os._exit(1)
        assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 7
        np.testing.assert_array_equal(first.upscale(picture), sr)
    assert dict(os.environ) == before
finally:
    done.set()
    thread.join()
print("lines %d" % lines)
print("a good guest")
