"""Run a program of the book in its folder and save every number in its final variables.

    python book_program.py original|cpu|cuda PROGRAM OUT [OLD=>NEW …]

``OLD=>NEW`` are replacements in its text, to take fewer steps. The digits are the package's 10,000, on both sides.
"""

import contextlib
import io
import os
import pickle
import sys
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy

ATTRIBUTES = ("params", "train_loss_list", "train_acc_list", "test_acc_list")
DATA = ("x_train", "t_train", "x_test", "t_test")


def main(mode, program, out, *changes):
    mpl.use("Agg")
    warnings.simplefilter("ignore")  # of the book's code: overflows, empty legends
    os.environ["XPNET_DEVICE"] = "cuda" if mode == "cuda" else "cpu"
    if mode != "original":
        from training.compat.book import mnist
        from training.data import load

        vars(mnist)["load"] = lambda name, download: load("mnist10k")
    from PIL import Image

    vars(Image)["Image"].show = lambda image: None
    path = Path(program).resolve()
    os.chdir(path.parent)
    sys.path[:0] = [str(path.parent), str(path.parents[1])]  # originals import the modules of the parent folder
    text = path.read_text("utf-8")
    for change in changes:
        old, new = change.split("=>")
        assert old in text, f"{path.name} has no {old!r}"
        text = text.replace(old, new)
    numpy.random.seed(0)
    space, printed = {"__name__": "__main__"}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(text, path.name, "exec"), space)
    found: dict[str, numpy.ndarray] = {}
    seen: set[str] = set()
    for name, value in space.items():
        if not name.startswith("__") and name not in DATA:
            collect(name, value, found, seen)
    for index, drawn in enumerate(plotted()):
        found[f"plot {index}"] = drawn
    result = {"numbers": found, "printed": printed.getvalue(), "on device": sorted(seen)}
    Path(out).write_bytes(pickle.dumps(result))


def collect(name, value, found, seen, depth=0):
    """Add the numbers in ``value`` to ``found``, and the names of device arrays to ``seen``."""
    if hasattr(value, "__cuda_array_interface__"):
        seen.add(name)
        value = value.get()
    if isinstance(value, (int, float, numpy.generic, numpy.ndarray)):
        array = numpy.asarray(value)
        if array.dtype.kind in "biuf":
            found[name] = array.astype("float64")
    elif depth == 4 or isinstance(value, (str, type)):
        return
    elif isinstance(value, dict):
        for index, (key, part) in enumerate(value.items()):
            collect(f"{name}[{index if ':' in str(key) else key}]", part, found, seen, depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            collect(f"{name}[{index}]", part, found, seen, depth + 1)
    else:
        for attribute in ATTRIBUTES:
            if attribute in getattr(value, "__dict__", {}):
                collect(f"{name}.{attribute}", getattr(value, attribute), found, seen, depth + 1)


def plotted():
    """Yield the data of lines, images and bars of all open figures."""
    import matplotlib.pyplot as plt

    for number in plt.get_fignums():
        for axes in plt.figure(number).axes:
            yield from (numpy.asarray(line.get_ydata(), "float64") for line in axes.lines)
            yield from (numpy.asarray(image.get_array(), "float64") for image in axes.images)
            yield numpy.array([bar.get_height() for bar in axes.patches if hasattr(bar, "get_height")], "float64")


if __name__ == "__main__":
    main(*sys.argv[1:])
