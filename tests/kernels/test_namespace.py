"""``kernels`` is a namespace package: another distribution's package of that name can be installed next to it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import backend

ROOT = Path(backend.__file__).parent.parent

PROGRAM = """
import importlib, pkgutil, sys
{first}
import kernels, layers, numpy
import kernels.hub
from kernels.convolution import convolution
from kernels.core.window import Window
for _, name, _ in pkgutil.walk_packages(kernels.__path__, "kernels."):
    importlib.import_module(name)
one = numpy.ones((1, 1, 2, 2), "float32")
print(kernels.hub.ANSWER, kernels.NAME, convolution(one, one, None, Window(2)).item(), kernels.__file__)
"""


def install_xpnet(site):
    for package in ("backend", "kernels", "layers"):
        shutil.copytree(ROOT / package, site / package, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.pyc"))


def install_stand_in(site):
    (site / "kernels").mkdir(exist_ok=True)
    (site / "kernels" / "__init__.py").write_text("NAME = 'stand-in'\n")
    (site / "kernels" / "hub.py").write_text("ANSWER = 42\n")


def run(site, code):
    environment = {**os.environ, "PYTHONPATH": str(site), "XPNET_DEVICE": "cpu"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=site.parent, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("order", [(install_xpnet, install_stand_in), (install_stand_in, install_xpnet)])
@pytest.mark.parametrize("first", ["import kernels", "import layers"])
def test_another_distribution_with_a_package_kernels_works_next_to_ours(tmp_path, order, first):
    site = tmp_path / "site-packages"
    site.mkdir()
    for install in order:
        install(site)
    done = run(site, PROGRAM.format(first=first))
    assert done.stdout.split() == ["42", "stand-in", "4.0", str(site / "kernels" / "__init__.py")], done.stderr
    # Uninstalling the other takes its files alone.
    for name in ("__init__.py", "hub.py"):
        (site / "kernels" / name).unlink()
    done = run(site, "import layers, kernels.gemm; print(kernels.gemm.__file__)")
    assert done.stdout.strip() == str(site / "kernels" / "gemm.py"), done.stderr


def test_a_package_kernels_in_another_folder_of_installed_packages_is_named_with_the_remedy(tmp_path):
    """A regular package hides a namespace package, wherever it comes on the path."""
    other = tmp_path / "other" / "site-packages"
    other.mkdir(parents=True)
    install_stand_in(other)
    site = tmp_path / "site-packages"
    site.mkdir()
    install_xpnet(site)
    done = run(site, f"import sys; sys.path.append({str(other)!r}); import layers")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: {other / 'kernels' / '__init__.py'} hides the package 'kernels' of xpnet")
    assert last.endswith(f"install xpnet into {other}, too, and not as an editable install")
