"""A training shows itself on a terminal and in a notebook, and nowhere else; the bits stay."""

import re
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from tests.support.terminals import Terminal
from training import SGD, Callback, EpochResult, Loader, ProgressBar, Trainer, TwoLayerNet
from training.loop import display, figures
from training.loop.evaluation import Evaluation, Predictions


@pytest.fixture
def terminal(monkeypatch):
    """A terminal in the place of standard error, from when it is called: pytest has its own until the test begins."""

    def begin():
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setattr(sys, "stderr", Terminal())
        return sys.stderr

    return begin


class Notebook:
    """A stand-in for IPython in a kernel: it keeps what is displayed, and every update of it."""

    def __init__(self, monkeypatch):
        self.displays = []
        ipython, parts = ModuleType("IPython"), ModuleType("IPython.display")
        ipython.get_ipython = lambda: SimpleNamespace(kernel=1)
        parts.HTML = lambda text: text
        parts.display = self.display
        ipython.display = parts
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "IPython.display", parts)

    def display(self, html, display_id):
        assert display_id is True
        self.displays.append([html])
        return SimpleNamespace(update=self.displays[-1].append)


@pytest.fixture
def notebook(monkeypatch):
    return Notebook(monkeypatch)


def trainer(*callbacks, epochs=2):
    from backend import random

    random.seed(0)
    x = np.eye(4, dtype="float32").repeat(5, axis=0)
    data = Loader(x, np.arange(4).repeat(5), batch_size=5)
    return Trainer(TwoLayerNet(4, 8, 4), data, data, SGD(0.1), epochs=epochs, callbacks=callbacks)


def test_a_terminal_shows_a_bar_and_the_table(terminal, capsys):
    written = terminal()
    history = trainer().train()
    rows = [line for line in written.lines if re.match(r" *(epoch +loss|\d/2 )", line)]
    assert [row.split()[0] for row in rows] == ["epoch", "1/2", "2/2"]
    assert f"{100 * history[1].test_accuracy:.2f} %" in rows[2]
    assert any(line.startswith("epoch 1/2") for line in written.lines)
    assert capsys.readouterr().out == ""


def test_told_to_be_quiet_it_shows_nothing(terminal):
    written = terminal()
    trainer().train(quiet=True)
    list(trainer().epochs())
    assert written.getvalue() == ""
    with pytest.raises(TypeError, match="quiet"):
        trainer().train(quiet="no")


def test_a_bar_of_ones_own_is_the_only_one(terminal):
    out, written = Terminal(), terminal()
    with ProgressBar(out) as bar:
        trainer(bar).train()
    assert "epoch 2/2" in out.getvalue()
    assert written.getvalue() == ""


def test_a_file_shows_nothing(capsys):
    trainer().train()
    assert capsys.readouterr() == ("", "")


def test_a_process_without_standard_error_trains(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert len(trainer().train()) == 2


def test_a_notebook_shows_a_bar_and_the_table_stays(notebook, monkeypatch, capsys):
    monkeypatch.setattr(display.NotebookDisplay.__init__, "__defaults__", (0.0,))
    runs = trainer()
    history = runs.train()
    (updates,) = notebook.displays
    assert [update.count("<tr") for update in updates] == [2, 3, 3]
    assert updates[-1] == history._repr_html_()
    assert [type(each).__name__ for each in runs.callbacks] == ["NonFiniteWatch"]
    bars = re.split(r"\r", capsys.readouterr().err)  # tqdm's, without widgets
    assert bars[1].startswith("epoch 1/2:   0%|")
    assert any(re.match(r"epoch 2/2  loss [\d.]+  accuracy [\d.]+ %: 100%.* samples/s", each) for each in bars)
    assert bars[-2].strip() == bars[-1] == ""  # taken off


def test_a_notebook_is_updated_now_and_then_however_many_the_epochs(notebook):
    trainer(epochs=150).train()
    (updates,) = notebook.displays
    assert len(updates) < 50
    assert updates[-1].count("<tr") in (101, 102)  # the header, the last hundred, and the best if it is not among them
    assert "<td>150/150</td>" in updates[-1]
    assert re.search(r"<caption>(49|50) epochs before these are not shown</caption>", updates[-1])
    assert updates[-1].count("bold") == 1


def test_an_interrupted_training_keeps_its_table_and_goes_on_in_a_new_one(notebook):
    class Stop(Callback):
        def on_step_end(self, trainer, step):
            if step == 6:
                raise KeyboardInterrupt

    runs = trainer(Stop())
    with pytest.raises(KeyboardInterrupt):
        runs.train()
    assert "<td>1/2</td>" in notebook.displays[0][-1]
    assert [type(each).__name__ for each in runs.callbacks] == ["NonFiniteWatch", "Stop"]
    runs.train()
    assert "<td>2/2</td>" in notebook.displays[1][-1]


def test_what_is_shown_changes_no_bit(notebook):
    shown, silent = trainer(), trainer()
    silent.train(quiet=True)
    shown.train()
    assert len(notebook.displays) == 1
    assert shown.network.params.flat.tobytes() == silent.network.params.flat.tobytes()


def test_a_notebook_shows_trainer_and_results_as_tables():
    runs = trainer()
    assert "0 of 2, 0 steps" in runs._repr_html_()
    assert "SGD(" in runs._repr_html_()
    history = runs.train()
    assert history._repr_html_().count("<tr") == 3
    assert "<td>2/2</td>" in runs._repr_html_()
    assert "<td>1/1</td>" in history[0]._repr_html_()
    html = Evaluation(0.5, 0.25, {"<f1>": 0.125, "confusion": np.eye(2)})._repr_html_()
    assert html == (
        "<table>\n<tr><th>loss</th><th>accuracy</th><th>&lt;f1&gt;</th></tr>\n"
        "<tr><td>0.5000</td><td>25.00 %</td><td>0.125</td></tr>\n</table>"
    )
    assert "accuracy" not in Evaluation(0.5, float("nan"))._repr_html_()
    guesses = Predictions(0.5, np.array([0, 1]), np.array([0, 0]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert "<td>50.00 %</td>" in guesses._repr_html_()


def test_a_notebook_shows_figures():
    results = [EpochResult(epoch, 0.5, 0.75, 0.25, 0.5, 0.1, 3.25, 1234.5) for epoch in (1, 2)]
    assert figures.learning_curves(results)._repr_png_().startswith(b"\x89PNG")
