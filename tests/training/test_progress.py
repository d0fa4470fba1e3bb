"""The progress bar: what it shows, and that it never waits."""

import io
import re
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.terminals import Terminal
from training.loop.callbacks import EpochResult
from training.loop.progress import ProgressBar, ProgressLines, epoch_line
from training.terminal.tables import show, table


class Totals:
    """A copy to the host that arrives when told to."""

    def __init__(self, loss, correct, samples):
        self.values = np.array([loss, correct, samples])
        self.done = False

    def get(self):
        assert self.done, "it waited for the device"
        return self.values


class Trainer(SimpleNamespace):
    def __init__(self, epochs=2, samples=1000):
        super().__init__(
            total_epochs=epochs, train_loader=SimpleNamespace(samples=samples, largest_batch=100), asked=[]
        )
        self.so_far = SimpleNamespace(batches=0)
        self.network = SimpleNamespace(last_layer=SimpleNamespace(target_kind="classes"))

    @property
    def samples(self):
        """Trained on so far, in this epoch alone: those of the totals, or those where it goes on."""
        return vars(self).get("totals", (0, 0, self.so_far.batches * self.train_loader.largest_batch))[2]

    def running_totals(self):
        self.asked.append(Totals(*self.totals))
        return self.asked[-1]


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def trainer():
    return Trainer()


def test_the_bar_shows_the_epoch_so_far_when_the_numbers_have_arrived(trainer):
    out = Terminal()
    with ProgressBar(out, interval=0.0) as bar:
        bar.on_epoch_begin(trainer, 2)
        trainer.totals = (50.0, 60, 100)
        bar.on_step_end(trainer, 11)
        bar.on_step_end(trainer, 12)
        assert len(trainer.asked) == 1  # one copy is under way: no second one
        assert "loss" not in out.getvalue()
        trainer.asked[0].done = True
        bar.on_step_end(trainer, 13)
    shown = out.lines[-1]
    assert shown.startswith("epoch 2/2  loss 0.5000  accuracy 60.00 % ━")
    assert re.search(r"  55% [\d,]+ samples/s .*:", shown)  # 1,100 of 2,000 images, and the time left
    assert out.getvalue().endswith("\r\x1b[1A\x1b[2K")  # taken off at the end


def test_a_network_that_predicts_numbers_has_no_accuracy(trainer):
    out = Terminal()
    trainer.network.last_layer.target_kind = "values"
    with ProgressBar(out, interval=0.0) as bar:
        bar.on_epoch_begin(trainer, 1)
        trainer.totals = (50.0, 0, 100)
        bar.on_step_end(trainer, 1)
        bar.on_step_end(trainer, 2)
    assert "accuracy" not in out.getvalue()


def test_the_numbers_are_looked_at_now_and_then_only(trainer):
    trainer.totals = (1.0, 1, 2)
    with ProgressBar(Terminal(), interval=3600) as bar:
        bar.on_epoch_begin(trainer, 1)
        bar.on_step_end(trainer, 1)
        trainer.asked[0].done = True
        for step in range(2, 100):
            bar.on_step_end(trainer, step)
    assert len(trainer.asked) == 1


def test_numbers_of_the_last_epoch_are_not_shown_in_this_one(trainer):
    out = Terminal()
    result = EpochResult(1, 0.5, 0.6, 0.5, 0.6, 0.1, 1.0, 1000.0)
    with ProgressBar(out, interval=0.0) as bar:
        trainer.totals = (900.0, 0, 1000)
        bar.on_epoch_begin(trainer, 1)
        bar.on_step_end(trainer, 1)
        bar.on_epoch_end(trainer, result)
        trainer.totals = (0.0, 0, 0)
        bar.on_epoch_begin(trainer, 2)
        trainer.asked[0].done = True  # too late
        trainer.totals = (10.0, 100, 100)
        bar.on_step_end(trainer, 2)
        trainer.asked[-1].done = True
        bar.on_step_end(trainer, 3)
    assert "0.9000" not in out.getvalue()
    assert "epoch 2/2  loss 0.1000  accuracy 100.00 %" in out.getvalue()


def test_a_bar_that_was_never_drawn_closes():
    with ProgressBar(Terminal()):
        pass


def test_epoch_lines_are_of_one_width():
    first = epoch_line(EpochResult(1, 2.3, 0.1, 2.25, 0.0985, 0.1, 3.21, 812.4), 12, False)
    last = epoch_line(EpochResult(12, 0.01, 1.0, 0.02, 1.0, 0.1, 103.2, 123456.7), 12, True)
    assert first == (
        "epoch  1/12  loss 2.3000  accuracy  10.00 %  test loss 2.2500  test accuracy   9.85 %       812 samples/s"
        "     3.2 s"
    )
    assert last == (
        "epoch 12/12  loss 0.0100  accuracy 100.00 %  test loss 0.0200  test accuracy 100.00 %   123,457 samples/s"
        "   103.2 s  best"
    )


def test_the_bar_of_an_epoch_that_goes_on_begins_there(trainer):
    out = Terminal()
    trainer.so_far.batches = 5  # of 100 images
    with ProgressBar(out, interval=0.0) as bar:
        bar.on_epoch_begin(trainer, 2)
        assert out.lines[-1].startswith("epoch 2/2 ━")
        assert " 75% " in out.lines[-1]  # 1,500 of 2,000 images
        bar._start -= 100.0
        trainer.totals = (60.0, 60, 600)
        bar.on_step_end(trainer, 16)
        trainer.asked[0].done = True
        bar.on_step_end(trainer, 17)
        assert " 1 samples/s" in out.lines[-1], "100 images in 100 s, not 600"


def test_a_narrow_terminal_shows_the_text_and_the_percentage(trainer, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    out = Terminal()
    with ProgressBar(out, interval=0.0) as bar:
        bar.on_epoch_begin(trainer, 2)
        bar.show(trainer, 0.5, 0.6, 100, 1000.0)
    assert out.lines[-1] == " 55%  epoch 2/2  loss 0.5000  accuracy 6"


def test_a_number_of_samples_that_is_not_known_has_no_percentage(trainer, capsys):
    trainer.train_loader.samples = 0
    out = Terminal()
    with ProgressBar(out, interval=0.0) as bar:
        bar.on_epoch_begin(trainer, 1)
        bar.show(trainer, 0.5, 0.6, 100, 1000.0)
    assert "samples/s" in out.lines[-1]
    assert "%" not in out.lines[-1].replace("60.00 %", "")
    ProgressLines().show(trainer, 0.5, 0.6, 1100, 1000.0)
    assert capsys.readouterr().err == "epoch 0/2  1,100 samples done  loss 0.5000  accuracy 60.00 %  1,000 samples/s\n"


@pytest.mark.parametrize("more", [{"TERM": "dumb"}, {"FORCE_COLOR": "1"}])
def test_no_control_characters_where_they_would_be_seen(trainer, monkeypatch, more):
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    out = Terminal() if "TERM" in more else io.StringIO()
    with ProgressBar(out, interval=0.0) as bar:
        bar.on_epoch_begin(trainer, 1)
        bar.show(trainer, 0.5, 0.6, 100, 1000.0)
        bar.on_epoch_end(trainer, EpochResult(1, 0.5, 0.6, 0.5, 0.6, 0.1, 1.0, 1000.0))
    show(table([["class", "of"], ["a", "1"]]), out)
    assert out.getvalue() == "class  of\na       1\n"


def test_a_cursor_is_never_hidden(trainer):
    out = Terminal()
    with ProgressBar(out, interval=0.0) as bar:
        bar.on_epoch_begin(trainer, 1)
    assert "\x1b[?25" not in out.getvalue()
