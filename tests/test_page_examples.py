"""Run the Python blocks of pages: a user who copies one gets what the page says.

Blocks of a page that need the same packages share a namespace and a folder of small data, in the page's order.
"""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

import backend
from layers.initializers import unfilled
from training.interop import to_torch
from training.models import build_for
from training.models.saving import save_arrays

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PACKAGES = {"torch.": ("torch",), "onnx": ("onnx", "onnxruntime"), "from_keras": ("h5py",)}
"""What a block needs, by what stands in it."""


def blocks(page):
    """Yield the blocks of a page, on their lines, each with the packages that it needs."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        needed = [packages for words, packages in PACKAGES.items() if words in found[1]]
        yield "\n" * text.count("\n", 0, found.start(1)) + found[1], (*needed, ())[0]


def prepare(packages):
    """Write the files that the blocks read, smaller than a user's."""
    rng = np.random.default_rng(0)
    if packages == ():
        letters = rng.choice(list("abc de\n"), 51 * 104)
        Path("shakespeare.txt").write_text("".join(letters), encoding="utf-8")
        np.save("photos.npy", rng.integers(0, 256, (10, 3, 64, 64), "uint8"))
        np.save("labels.npy", rng.integers(0, 5, (10, 64, 64)))
        with unfilled():
            save_arrays("resnet18.safetensors", to_torch(build_for("ResNet18", (3, 224, 224), 1000)))
    elif "onnx" in packages:
        from training.interop.onnx_export import export_onnx

        np.save("images.npy", rng.integers(0, 256, (2, 3, 32, 32), "uint8"))
        for file in ("resnet20.onnx", "model.onnx"):
            export_onnx(build_for("ResNet20", (3, 32, 32), 10), file)
    elif "h5py" in packages:
        import h5py

        shapes = {"conv2d": [(3, 3, 3, 32), (32,)], "batch_normalization": [(32,)] * 4, "dense": [(8192, 10), (10,)]}
        with h5py.File("model.weights.h5", "w") as file:
            for group, arrays in shapes.items():
                for number, shape in enumerate(arrays):
                    file[f"layers/{group}/vars/{number}"] = rng.random(shape, "float32")


@pytest.mark.parametrize(("page", "packages"), [
    ("interop.md", ("torch",)),
    ("networks.md", ()),
    ("networks.md", ("onnx", "onnxruntime")),
    ("networks.md", ("h5py",)),
])  # fmt: skip
def test_the_blocks_of_a_page_run(page, packages, tmp_path, monkeypatch):
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed: blocks of docs/{page} that need it are not run")
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": page}
    with backend.use("cpu"):
        prepare(packages)
        for code, needed in blocks(page):
            if needed == packages:
                exec(compile(code.replace("epochs=10", "epochs=1"), DOCS / page, "exec"), namespace)


def test_no_block_is_left_out():
    found = [(page, packages) for page in ("interop.md", "networks.md") for _, packages in blocks(page)]
    assert len(found) == sum((DOCS / page).read_text(encoding="utf-8").count("```python") for page in {*dict(found)})
    (mark,) = test_the_blocks_of_a_page_run.pytestmark
    assert set(found) == set(mark.args[1])
