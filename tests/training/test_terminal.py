"""Output of the commands on a terminal of any width, into a file, and in any encoding; what the help says."""

import io
import os
import pty
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.support.command_line import xpnet
from tests.support.terminals import plain_lines
from training.cli import COMMANDS, console
from training.loop.callbacks import EpochResult
from training.loop.epoch_table import EpochTable, as_html
from training.loop.progress import ProgressLines
from training.terminal.tables import aligned, as_lines

PROGRAM = [sys.executable, "-c", "from training.command import program; program()"]
TINY = """
import sys
from bench.faults import tiny_run
from training.cli import main
with tiny_run.tiny():
    main(sys.argv[1:])
"""
"""The command with a data set of a dozen images, and figures that take no time."""
TRAIN = ["train", "--model", "TwoLayerNet", "--epochs", "4", "--device", "cpu", "--lr", "0.003"]


def result(epoch=1, **more):
    return EpochResult(epoch, 0.5, 0.75, 0.25, 0.5, 0.1, 3.25, 1234.5, **more)


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_the_terminal_and_is_not_cut(monkeypatch, command, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    said = xpnet(*[command] if command else [], "--help")
    assert said.code == 0
    assert max(map(len, said.out.splitlines())) <= columns
    assert "..." not in re.sub(r"\b[A-Z]+\]?\.\.\.", "", said.out)  # but for arguments that may be many
    if not command:
        words = " ".join(said.out.split())
        assert all(short in words for short in COMMANDS.values())
        assert 'eval "$(_XPNET_COMPLETE=bash_source xpnet)"' in said.out


def test_the_shell_completes_commands_options_and_choices():
    def completed(words):
        more = {"_XPNET_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        said = subprocess.run(PROGRAM, env={**os.environ, **more}, capture_output=True, text=True, check=True)
        return [line.partition(",")[2] for line in said.stdout.splitlines()]

    assert completed("xpnet pr") == ["predict", "profile"]
    assert completed("xpnet train --opti") == ["--optimizer"]
    assert completed("xpnet train --optimizer ada") == ["adagrad", "adam", "adamw"]


def on_terminal(columns, *arguments, **environment):
    """Return what the command writes on a terminal of this width, standard output and error together."""
    near, far = pty.openpty()
    subprocess.run(["stty", "cols", str(columns), "rows", "24"], stdin=far, check=True)
    program = [sys.executable, "-c", TINY, *arguments]
    child = subprocess.Popen(program, stdout=far, stderr=far, stdin=far, env={**os.environ, **environment})
    os.close(far)
    written = b""
    try:
        while piece := os.read(near, 4096):
            written += piece
    except OSError:  # Linux says so at the end
        pass
    os.close(near)
    return child.wait(), written.decode()


@pytest.mark.skipif(sys.platform != "linux", reason="pseudo-terminals differ elsewhere")
@pytest.mark.parametrize(("columns", "encoding"), [(50, "utf-8"), (80, "ascii")])
def test_a_terminal_shows_a_bar_and_a_table_that_fit(tmp_path, columns, encoding):
    code, written = on_terminal(
        columns, *TRAIN, "--batch-size", "6", "--out", str(tmp_path / "run"), PYTHONIOENCODING=encoding, COLUMNS=""
    )
    assert code == 0
    assert encoding != "ascii" or written.isascii()
    lines = plain_lines(written)
    table = [line for line in lines if re.match(r" *epoch +loss", line) or re.match(r" +\d/4 +\d", line)]
    assert len(table) == 5
    assert max(len(line.rstrip()) for line in table) < columns
    bars = [line for line in lines if re.match(r"( *\d+%  )?epoch \d/4", line)]
    assert bars
    assert max(len(line.rstrip()) for line in bars) <= columns


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "utf-8"])
def test_a_file_gets_plain_lines_in_any_encoding(tmp_path, encoding):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    data = tmp_path / "Größe²☃.csv"
    data.write_text("größe,preis☃\n" + "".join(f"{n},{n % 7 * 1.5}\n" for n in range(60)), encoding="utf-8")
    arguments = [*TRAIN[:1], *TRAIN[3:], "--data", data, "--batch-size", "9", "--out", tmp_path / "run☃"]
    said = subprocess.run([*PROGRAM, *map(str, arguments)], env=environment, capture_output=True, check=False)
    text = (said.stdout + said.stderr).decode(encoding)
    assert said.returncode == 0, text
    assert all(line.isprintable() for line in text.splitlines())
    assert "☃" in text or r"\u2603" in text


class Clock:
    def __init__(self, monkeypatch, module):
        self.now = 0.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)


def test_a_file_gets_at_most_one_line_a_second_and_the_last(monkeypatch, capsys):
    clock = Clock(monkeypatch, console)
    lines = console.Console(False, False)
    for epoch in range(1, 36):
        lines.epoch(result(epoch), 35, {"best": False}, "val")
        clock.now += 0.125
    lines.flush()
    lines.flush()
    shown = [int(re.match(r"epoch +(\d+)/35 ", line)[1]) for line in capsys.readouterr().out.splitlines()]
    assert shown == [1, 9, 17, 25, 33, 35]


def test_json_has_every_epoch(capsys):
    lines = console.Console(False, True)
    for epoch in range(1, 4):
        lines.epoch(result(epoch), 3, {"epoch": epoch, "best": False})
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize("width", [0, 1, 20, 40, 60, 79, 80, 200])
def test_a_table_is_never_wider_than_the_terminal(width):
    table = EpochTable(12, "val")
    rows = as_lines(table.row(result(1), True, width))
    rows += as_lines(table.row(result(12, metrics={"f1": 0.5, "confusion": [[1]]}), False, width))
    if width >= 20:
        assert max(map(len, rows)) < width
    assert rows[0].split()[0] == "epoch"
    assert rows[1].split()[0] == "1/12"
    assert rows[1].endswith("  best")


def test_a_table_has_all_that_an_epoch_gives():
    table = EpochTable(12, "val")
    assert as_lines(table.row(result(1), True, 200)) == [
        "epoch    loss  accuracy  val loss  val accuracy     time  samples/s",
        " 1/12  0.5000   75.00 %    0.2500       50.00 %    3.2 s      1,234  best",
    ]
    assert as_lines(table.row(result(2), False, 200)) == [
        " 2/12  0.5000   75.00 %    0.2500       50.00 %    3.2 s      1,234"
    ]
    numbers = EpochResult(3, 0.5, float("nan"), 123456.0, float("nan"), 0.1, 3.0, 10.0, metrics={"mae": 1.5})
    assert as_lines(table.row(numbers, False, 200)) == [
        "epoch    loss   val loss  val mae     time  samples/s",
        " 3/12  0.5000  1.235e+05      1.5    3.0 s         10",
    ]


def test_a_table_in_html_is_escaped_and_marks_the_best():
    worse = EpochResult(2, 0.5, 0.75, 0.25, 0.4, 0.1, 3.25, 1234.5, metrics={"<b>": 1.0})
    html = as_html([result(1), worse], 9)
    assert html.count("<tr") == 3
    assert '<tr style="font-weight: bold"><td>1/9</td>' in html
    assert html.count("bold") == 1
    assert "<th>test &lt;b&gt;</th>" in html
    assert as_html([]) == "<table>\n<tr></tr>\n</table>"


def test_lines_of_progress_are_rare_and_never_wait(monkeypatch):
    out, totals = io.StringIO(), SimpleNamespace(done=False, get=lambda: (50.0, 60, 100))
    trainer = SimpleNamespace(
        total_epochs=2,
        train_loader=SimpleNamespace(samples=400, largest_batch=100),
        so_far=SimpleNamespace(batches=0),
        samples=500,
        network=SimpleNamespace(last_layer=SimpleNamespace(target_kind="labels")),
        running_totals=lambda: totals,
    )
    now = [0.0]
    monkeypatch.setattr("training.loop.progress.time.perf_counter", lambda: now[0])
    lines = ProgressLines(out, interval=0.1)
    lines.on_epoch_begin(trainer, 2)
    trainer.samples += 100
    for step in range(1, 40):
        now[0] += 0.25
        totals.done = step > 20
        lines.on_step_end(trainer, step)
    assert out.getvalue().splitlines() == [
        f"epoch 2/2   25 % done  loss 0.5000  accuracy 60.00 %  {100 / seconds:,.0f} samples/s"
        for seconds in (5.25, 6.25, 7.25, 8.25, 9.25)
    ]


def test_tables_never_cut_nor_interpret_what_is_in_them(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    names = ["[bold]class[/]", ":smile:", "七" * 3, "a\x1b[2J", "x" * 50]
    lines = aligned([("name", "of"), *((name, str(10**place)) for place, name in enumerate(names))])
    assert lines[0] == "name" + " " * 50 + "of".rjust(3)
    assert [line.split()[0] for line in lines[1:]] == [*names[:3], r"a\x1b[2J", names[4]]
    assert [line.split()[1] for line in lines[1:]] == ["1", "10", "100", "1000", "10000"]
    assert len(lines[3]) == len(lines[1]) - 3  # two cells each
