"""Names of the book's modules, asked for at the packages themselves."""

import importlib
import subprocess
import sys

import pytest

import training.compat.book

MODULES = [
    "functions",
    "gradient",
    "layers",
    "multi_layer_net",
    "multi_layer_net_extend",
    "optimizer",
    "trainer",
    "util",
    "mnist",
]


@pytest.mark.parametrize("module", MODULES)
def test_the_package_has_every_name(module):
    own = importlib.import_module(f"training.compat.book.{module}")
    for name in own.__all__:
        if name != "np":  # a module without identity: its names are those of the active device
            assert getattr(training.compat.book, name) is getattr(own, name), name
    assert set(own.__all__) <= set(dir(getattr(training.compat.book, module)))


def test_other_names_are_errors():
    with pytest.raises(AttributeError, match=r"module 'training.compat.book' has no attribute 'Adams'"):
        training.compat.book.Adams  # noqa: B018
    assert not hasattr(training.compat.book, "__wrapped__")


def test_the_layers_load_no_training():
    code = (
        "import sys, layers.compat.book; from layers.compat.book import Affine, np;"
        "assert not [name for name in sys.modules if name.startswith('training')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
