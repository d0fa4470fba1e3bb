"""Names of the book's modules, asked for at the two packages themselves."""

import importlib
import subprocess
import sys

import pytest

import layers.compat.book
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


@pytest.mark.parametrize("package", [layers.compat.book, training.compat.book])
@pytest.mark.parametrize("module", MODULES)
def test_both_packages_have_every_name(package, module):
    own = importlib.import_module(f"training.compat.book.{module}")
    for name in own.__all__:
        if name != "np":  # a module without identity: its names are those of the active device
            assert getattr(package, name) is getattr(own, name), name
    assert set(own.__all__) <= set(dir(getattr(package, module)))


@pytest.mark.parametrize("package", [layers.compat.book, training.compat.book])
def test_other_names_are_errors(package):
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'Adams'"):
        package.Adams  # noqa: B018
    assert not hasattr(package, "__wrapped__")


def test_the_layers_load_no_training():
    code = (
        "import sys, layers.compat.book as book; from layers.compat.book import Affine, np;"
        "assert not [name for name in sys.modules if name.startswith('training')]; book.Adam;"
        "assert 'training.compat.book.optimizer' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
