"""Compiled training steps: each program is compiled once, ahead of its need in other threads if compiling takes long."""
import concurrent.futures
import os
import sys
import time

from tools.gpu.training import run_steps

import jax

AHEAD = 5  # seconds of compiling above which it is worth a thread


class Stopped(Exception):
    """The process was told to stop while it waited for a program."""


class Programs(object):
    """Programs of run_steps by graph, recipe, precision, and the shapes of tiles; a line tells of each that has been compiled."""

    def __init__(self, stop, threads=4):
        """stop: a list that is no longer empty once nothing is to be waited for."""
        self.stop, self._futures, self.slowest = stop, {}, 0
        self._pool = concurrent.futures.ThreadPoolExecutor(threads)

    def _compile(self, graph, recipe, precision, state, tiles, rates):
        before = time.time()
        program = run_steps.lower(graph, recipe, precision, state, tiles, rates).compile()
        seconds = time.time() - before
        self.slowest = max(self.slowest, seconds)
        print("compiled %s %s in %s at batch %d, %d steps: %.1f s" % (
            graph.model, graph.scale, precision, recipe.batch, rates.shape[0], seconds), flush=True)
        return program

    def request(self, graph, recipe, precision, state, tiles, steps):
        """A Future of the program of `steps` steps. Of state and tiles, shapes alone count."""
        state, tiles, rates = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (
            state, tiles, jax.ShapeDtypeStruct((steps,), "float32")))
        key = (graph, recipe, precision, steps) + tuple(x.shape for x in tiles)
        if key not in self._futures:
            self._futures[key] = self._pool.submit(self._compile, graph, recipe, precision, state, tiles, rates)
        return self._futures[key]

    def request_ahead(self, *args):
        """As request(), if compiling has been found to take long; else it is left for when the program is needed."""
        if self.slowest > AHEAD:
            self.request(*args)

    def get(self, *args):
        """The program, as request(); waits for it. Raises Stopped."""
        future = self.request(*args)
        while not self.stop:
            if concurrent.futures.wait([future], 0.2).done:
                return future.result()
        raise Stopped()

    def leave(self, done):
        """The exit status of the process: 130 or 143 if it was stopped by Ctrl-C or SIGTERM before it was `done`. Ends the process here
        if programs are still being compiled that nobody needs any more; Python would wait for them."""
        status = 128 + self.stop[0] if self.stop and not done else 0
        if not all(future.done() for future in self._futures.values()):
            sys.stdout.flush()
            os._exit(status)
        return status
