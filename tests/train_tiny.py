"""train.py with a 32s of 16 channels, one DRAG and one RB, which is judged by little, for tests that are not
about the network."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import model
import train
from ops import tf
from tools import command, gate
from tools.training import cluster, graph

model.MODELS["32s"] = model.Variant(channels=16, drags=1, blocks=1)
cluster.can_compile = lambda: False  # it takes longer than these trainings
gate.PATCHES, graph.hard_pictures = 20, lambda count, side: gate.hard_pictures(2, 24)


def main():
    command.run_main(train.main)


if __name__ == "__main__":
    main()
else:  # to be forked
    command.owns_process = True
    tf.__version__
