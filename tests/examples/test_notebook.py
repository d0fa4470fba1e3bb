"""The notebook: it is kept without outputs, and runs from the first cell to the last."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Not by nbmake: it runs nbclient, too, looks at no outputs, and its plugin is loaded into all runs of pytest, none of
# which started with pytest 8.1.0 until there was a new nbmake (treebeardtech/nbmake issue 119).
NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_training.ipynb"
RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
print(nbformat.writes(notebook))
"""
MISSING = [name for name in ("nbclient", "ipykernel") if importlib.util.find_spec(name) is None]


def test_it_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    codes = [cell for cell in cells if cell["cell_type"] == "code"]
    assert codes
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in codes)


@pytest.mark.skipif(bool(MISSING), reason=f"notebooks need {' and '.join(MISSING)}: pip install 'xpnet[test]'")
def test_it_runs_and_shows_tables_and_figures(tmp_path):
    environment = {**os.environ, "XPNET_DEVICE": "cpu", "HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path / "ipython")}
    environment["PYTHONPATH"] = str(NOTEBOOK.parents[1])
    run = subprocess.run(
        [sys.executable, "-c", RUN, str(NOTEBOOK)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    cells = [cell for cell in json.loads(run.stdout)["cells"] if cell["cell_type"] == "code"]
    _, network, training, curves, predictions, confusion = [
        [output.get("data", {}) for output in cell["outputs"]] for cell in cells
    ]
    assert "TwoLayerNet" in "".join(network[0]["text/html"])
    (shown,) = filter(None, training)  # one display, which was updated; a text bar is no display
    table = "".join(shown["text/html"])
    assert table.count("<tr") == 4
    assert "<td>3/3</td>" in table
    streams = [output for cell in cells for output in cell["outputs"] if output["output_type"] == "stream"]
    assert {stream["name"] for stream in streams} == {"stderr"}
    bars = "".join("".join(stream["text"]) for stream in streams).split("\r")
    assert any(bar.startswith("epoch 3/3") for bar in bars)
    assert bars[-1].strip() == ""  # taken off
    assert "accuracy" in "".join(predictions[0]["text/html"])
    assert all("image/png" in figure[0] for figure in (curves, confusion))
