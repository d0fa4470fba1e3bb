"""The rewriting of a book program's imports."""

from click.testing import CliRunner

from examples import book_imports

PROGRAM = """import sys, os
import numpy as np
import pickle
import matplotlib.pylab as plt
from matplotlib.image import imread
from dataset.mnist import load_mnist
from common.layers import *
from common.multi_layer_net import MultiLayerNet
from two_layer_net import TwoLayerNet
# from common: a comment stays
def f():
    from common.util import im2col
"""


def test_only_imports_change():
    expected = PROGRAM.replace("from common.", "from training.compat.book.").replace(
        "dataset.mnist", "training.compat.book.mnist"
    )
    assert book_imports.convert(PROGRAM) == expected
    on_device = book_imports.convert(PROGRAM, device=True).splitlines()
    assert on_device[1:5] == [
        "from training.compat.book import np",
        "from training.compat.book import pickle",
        "from training.compat.book import pyplot as plt",
        "from training.compat.book.pyplot import imread",
    ]
    assert on_device[5:] == expected.splitlines()[5:]
    assert book_imports.convert(expected) == expected


def test_lines_that_import_more_are_left_alone():
    """Rather an import that stays NumPy's than a program that is broken."""
    for line in (
        "import numpy as np, os",
        "import pickle, gzip",
        "import numpy as npx",
        "import pickletools",
        "x = 'import pickle'",
    ):
        assert book_imports.convert(line, device=True) == line
    for line, expected in (
        ("import pickle as p", "from training.compat.book import pickle as p"),
        ("import numpy as np  # arrays", "from training.compat.book import np  # arrays"),
        ("from matplotlib import pyplot as plt", "from training.compat.book import pyplot as plt"),
        (
            "import numpy as np\r\nimport pickle\r\n",
            "from training.compat.book import np\r\nfrom training.compat.book import pickle\r\n",
        ),
        ("import common.layers as L", "import training.compat.book.layers as L"),
        ("from dataset import mnist", "from training.compat.book import mnist"),
    ):
        assert book_imports.convert(line, device=True) == expected


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "latin.py").write_bytes(b"# caf\xe9")
    run = CliRunner().invoke(book_imports.main, [str(tmp_path / "book"), str(tmp_path / "new")])
    assert run.exit_code == 1
    assert "latin.py is no UTF-8 text" in run.output


def test_the_command_copies_a_folder(tmp_path):
    source = tmp_path / "book"
    (source / "ch05").mkdir(parents=True)
    (source / "ch05" / "train.py").write_text(PROGRAM)
    (source / "weights.pkl").write_bytes(b"\x00\x01")
    run = CliRunner().invoke(book_imports.main, [str(source), str(tmp_path / "new")])
    assert run.exit_code == 0, run.output
    assert "1 programs changed" in run.output
    assert (tmp_path / "new" / "weights.pkl").read_bytes() == b"\x00\x01"
    assert (tmp_path / "new" / "ch05" / "train.py").read_text() == book_imports.convert(PROGRAM)
    assert (source / "ch05" / "train.py").read_text() == PROGRAM
    again = CliRunner().invoke(book_imports.main, [str(source), str(tmp_path / "new")])
    assert again.exit_code == 2
    assert "is there already" in again.output
