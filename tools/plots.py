"""What all plots share: colors, and files that are written all or nothing."""
import os

from tools.command import UserError
from tools.files import replacing

COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
          "#000000"]  # Okabe and Ito's, told apart by all


def save_figure(figure, path):
    """Write a figure of matplotlib, all or nothing, in the format that the suffix says, and close it. Raises
    UserError."""
    from matplotlib import pyplot
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=figure.dpi, format=os.path.splitext(path)[1][1:] or "png")
    except (OSError, ValueError) as error:
        raise UserError("cannot write %s: %s" % (path, error))
    finally:
        pyplot.close(figure)
