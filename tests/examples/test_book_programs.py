"""The programs of chapters 3 to 8 of the book itself, with their imports rewritten, beside the originals on NumPy.

They are not part of this project: the folder of the book's repository is named by XPNET_BOOK_DIR.
"""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from examples.book_imports import convert
from training.data import load

RUNNER = Path(__file__).parents[1] / "support" / "book_program.py"

LOADED = "(x_train, t_train), (x_test, t_test) = load_mnist(flatten=False)"
FEW = f"{LOADED}=>{LOADED}; x_train, t_train, x_test, t_test = x_train[:300], t_train[:300], x_test[:200], t_test[:200]"

PROGRAMS = {
    "ch03/mnist_show": [],
    "ch03/neuralnet_mnist": ["range(len(x))=>range(50)"],
    "ch03/neuralnet_mnist_batch": [],
    "ch03/relu": [],
    "ch03/sig_step_compare": [],
    "ch03/sigmoid": [],
    "ch03/step_function": [],
    "ch04/gradient_1d": [],
    "ch04/gradient_2d": [],
    "ch04/gradient_method": [],
    "ch04/gradient_simplenet": [],
    "ch04/train_neuralnet": ["iters_num = 10000=>iters_num = 20"],
    "ch05/buy_apple": [],
    "ch05/buy_apple_orange": [],
    "ch05/gradient_check": ["hidden_size=50=>hidden_size=1"],
    "ch05/train_neuralnet": ["iters_num = 10000=>iters_num = 20"],
    "ch06/batch_norm_gradient_check": ["[100, 100]=>[1, 1]"],
    "ch06/batch_norm_test": ["max_epochs = 20=>max_epochs = 2", "num=16=>num=2"],
    "ch06/hyperparameter_optimization": ["optimization_trial = 100=>optimization_trial = 2", "epocs=50=>epocs=3"],
    "ch06/optimizer_compare_mnist": ["max_iterations = 2000=>max_iterations = 15"],
    "ch06/optimizer_compare_naive": [],
    "ch06/overfit_dropout": ["epochs=301=>epochs=4"],
    "ch06/overfit_weight_decay": ["max_epochs = 201=>max_epochs = 4"],
    "ch06/weight_init_activation_histogram": [],
    "ch06/weight_init_compare": ["max_iterations = 2000=>max_iterations = 15"],
    "ch07/apply_filter": [],
    "ch07/gradient_check": [],
    "ch07/train_convnet": [FEW, "max_epochs = 20=>max_epochs = 2"],
    "ch07/visualize_filter": [],
    "ch08/half_float_network": ["sampled = 10000=>sampled = 100"],
    "ch08/misclassified_mnist": ["#sampled = 1000=>sampled = 1500", "#x_test=>x_test", "#t_test=>t_test"],
    "ch08/train_deepnet": [FEW, "epochs=20=>epochs=1"],
}
"""Each program, and what is changed in it, on both sides, to take fewer steps."""

NUMPY_ALONE = (
    "ch03/mnist",
    "ch03/relu",
    "ch03/s",
    "ch04/gradient_1d",
    "ch04/gradient_2d",
    "ch04/gradient_m",
    "ch05/buy",
)
ON_DEVICE = [name for name in PROGRAMS if not name.startswith(NUMPY_ALONE)]
"""Programs whose arrays xpnet computes with. The others use NumPy only and need no GPU."""


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    """A folder with the book's: ``original``, and ``cpu`` and ``cuda`` with imports rewritten."""
    named = os.environ.get("XPNET_BOOK_DIR")
    if not named:
        pytest.skip("needs the book's programs: set XPNET_BOOK_DIR to a checkout of its repository")
    target = tmp_path_factory.mktemp("book")
    for mode in ("original", "cpu", "cuda"):
        shutil.copytree(named, target / mode, ignore=shutil.ignore_patterns(".git", "notebooks", "*.gz", "mnist.pkl"))
        if mode == "original":
            continue
        for path in (target / mode).glob("ch0*/*.py"):
            path.write_text(convert(path.read_text("utf-8"), device=mode == "cuda"), "utf-8")
        shutil.rmtree(target / mode / "common")
        (target / mode / "dataset" / "mnist.py").unlink()
    digits = load("mnist10k")
    arrays = {"train_img": digits.train_images.reshape(-1, 784), "train_label": digits.train_labels}
    arrays |= {"test_img": digits.test_images.reshape(-1, 784), "test_label": digits.test_labels}
    (target / "original" / "dataset" / "mnist.pkl").write_bytes(pickle.dumps(arrays))
    return target


def run(book, mode, name):
    """Run a program and return its final numbers; see tests/support/book_program.py."""
    out = book / mode / f"{name}.numbers"
    if not out.exists():
        command = [sys.executable, str(RUNNER), mode, str(book / mode / f"{name}.py"), str(out), *PROGRAMS[name]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
    return pickle.loads(out.read_bytes())


def check(ours, theirs):
    """Every number of the original, in the end and in its figures, to 1e-6."""
    assert set(ours["numbers"]) >= set(theirs["numbers"])
    assert len(theirs["numbers"]) + len(theirs["printed"]) > 0
    for name, expected in theirs["numbers"].items():
        np.testing.assert_allclose(ours["numbers"][name], expected, rtol=0, atol=1e-6, err_msg=name)
    assert len(ours["printed"].splitlines()) == len(theirs["printed"].splitlines())


@pytest.mark.parametrize("name", PROGRAMS)
def test_same_numbers_as_the_original(book, name):
    check(run(book, "cpu", name), run(book, "original", name))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ON_DEVICE)
def test_same_numbers_on_a_gpu(book, name):
    ours = run(book, "cuda", name)
    check(ours, run(book, "original", name))
    assert ours["on device"]
