"""Settings from a file: ``--config``, ``--set``, and the run's own ``config.toml``."""

import dataclasses
import os
import subprocess
import sys

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.faults import tiny_run
from tests.support.command_line import xpnet
from training.cli import config, group
from training.files import toml_text
from training.loop.run_folder import RunFolder
from training.loop.settings import Settings

FIELDS = [field.name for field in dataclasses.fields(Settings)]
TRAIN = group.get_command(click.Context(group), "train")
OPTIONS = {option.name: option for option in config.keys(TRAIN).values()}


def options(*arguments):
    return TRAIN.make_context("train", [str(argument) for argument in arguments]).params


def chosen(params):
    return Settings.chosen(**{name: params[name] for name in FIELDS})


def values(option):
    """Draw what an option takes, as it would be typed."""
    kind = option.type
    if isinstance(kind, click.Choice):
        drawn = st.sampled_from([str(choice) for choice in kind.choices])
    elif isinstance(kind, click.IntRange):
        drawn = st.integers(kind.min, kind.max)
    elif isinstance(kind, click.FloatRange):
        drawn = st.floats(kind.min, kind.max, exclude_min=kind.min_open, exclude_max=kind.max_open)
    elif isinstance(kind, click.Path):
        drawn = st.binary(max_size=9).filter(lambda name: b"\0" not in name).map(os.fsdecode)
    elif isinstance(kind, type(click.BOOL)):
        drawn = st.booleans()
    elif isinstance(kind, type(click.STRING)):
        drawn = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
    else:
        drawn = st.sampled_from({"size": ["48x64", "7x7"], "checkpoint_every": ["200", "5m", "1e"]}[option.name])
    if option.multiple:
        return st.lists(drawn, max_size=3).map(tuple)
    has_default = isinstance(option.default, (int, float, str))
    return drawn if has_default else st.none() | drawn


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("config") / "run.toml"


@pytest.fixture
def _tiny():
    with tiny_run.tiny():
        yield


@settings(max_examples=60, deadline=None)
@given(st.fixed_dictionaries({name: values(OPTIONS[name]) for name in FIELDS}))
def test_settings_come_back_from_a_file_as_they_were(file, drawn):
    before = Settings.chosen(**drawn)
    file.write_bytes(toml_text.dump(dataclasses.asdict(before)))
    assert chosen(options("--config", file)) == before


@pytest.mark.parametrize(
    "more", [["--seed", "3"], ["--optimizer", "momentum", "--clip-norm", "1.5", "--best-on", "test"]]
)
@pytest.mark.usefixtures("_tiny")
def test_the_file_of_a_run_repeats_it_to_the_same_bits(tmp_path, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    first = xpnet(
        "train", "--model", "twolayernet", "--batch-size", 5, "--epochs", 1, "--threads", 1, *more, "--out", "first"
    )
    again = xpnet("train", "--config", "first/config.toml", "--out", "again")
    assert (first.code, first.err, again.code, again.err) == (0, "", 0, "")
    files = [(tmp_path / name / "config.toml").read_text() for name in ("first", "again")]
    assert files[0] == files[1]
    assert "#" not in files[0]
    assert [line.split(" = ")[0] for line in files[0].splitlines()] == [
        name for name in (*FIELDS, "device", "threads") if f"\n{name} = " in f"\n{files[0]}"
    ]
    assert RunFolder("first").model.read_bytes() == RunFolder("again").model.read_bytes()
    xpnet("train", "--config", "first", "--seed", 4, "--out", "other")
    assert RunFolder("first").model.read_bytes() != RunFolder("other").model.read_bytes()


def test_the_command_line_takes_precedence_over_the_file(file, monkeypatch):
    file.write_text("\ufeff# a comment\nbatch-size = 10\nlr = 1\nsize = 64\ncheckpoint_every = 7\nquiet = true\n")
    monkeypatch.setenv("XPNET_THREADS", "2")
    found = options("--config", file, "--batch-size", 20)
    names = ("batch_size", "lr", "size", "checkpoint_every", "quiet", "threads", "epochs")
    assert [found[name] for name in names] == [20, 1.0, "64x64", "7", True, 2, Settings.epochs]
    found = options(
        "--set", "lr=0.5", "--config", file, "--set", "quiet=no", "--set", "batch_size=", "--set", "graph=off"
    )
    assert [found[name] for name in ("lr", "quiet", "batch_size", "graph")] == [0.5, False, Settings.batch_size, False]
    assert options("--set", "epochs=2", "--epochs", 3, "--set", "json=true")["epochs"] == 3
    file.write_text("threads = 1\ngraph = false\n")
    found = options("--config", file)
    assert (found["threads"], found["graph"]) == (2, False)  # the environment's, the file's
    assert options("--config", file, "--set", "threads=3", "--graph")["threads"] == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch = 3", "unknown name 'epoch': did you mean epochs?"),
        ("Batch-Sise = 3", "unknown name 'Batch-Sise': did you mean batch_size?"),
        ("[train]\nepochs = 3", "unknown name 'train': xpnet train --help lists the options"),
        ("resume = 'run'", "unknown name 'resume': xpnet train --help lists the options"),
        ("batch_size = 3\nbatch-size = 3", "'batch-size' is given twice"),
        ("epochs = 3\nepochs = 3", "not TOML: "),
        ("epochs = 'two'", "epochs: expected a whole number, got 'two'"),
        ("epochs = 2.0", "epochs: expected a whole number, got 2.0"),
        ("epochs = true", "epochs: expected a whole number, got true"),
        ("epochs = [2]", "epochs: expected a whole number, got [2]"),
        ("[epochs]\na = 2", "epochs: expected a whole number, got {'a': 2}"),
        ("epochs = 0", "epochs: 0 is not in the range 1<=x<=10000000"),
        ("seed = " + "9" * 100, "seed: " + "9" * 100 + " is not in the range 0<=x<=18446744073709551615"),
        ("lr = '0.1'", "lr: expected a number, got '0.1'"),
        ("lr = nan", "lr: must be a finite number, got nan"),
        ("quiet = 1", "quiet: expected true or false, got 1"),
        ("data = 5", "data: expected a text in quotes, got 5"),
        ('out = "a\\u0000"', "out: expected a text in quotes without the character NUL, got 'a\\x00'"),
        ("size = 1.5", "size: expected a text in quotes or a whole number, got 1.5"),
        ("size = 0", "size: expected a size such as 64, or 48x64 for height and width, got 0"),
        ("optimizer = 'adm'", "optimizer: 'adm' is not one of 'sgd', 'momentum', "),
        ("epochs 3", "not TOML: "),
        ("a = " + "[" * 100_000, "TOML nested too deeply"),
        ("a = " + "9" * 5000, "not TOML: "),
        ("#" * (1 << 20) + "#", "more than 1,048,576 bytes; expected the settings of a run"),
    ],
)
def test_a_mistake_in_the_file_is_named(file, text, said):
    file.write_text(text)
    result = xpnet("train", "--config", file)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"Error: {file}: {said}")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "epoch=3"], "--set 'epoch=3': unknown name 'epoch': did you mean epochs?"),
        (["--set", "epochs"], "--set 'epochs': expected KEY=VALUE, as in batch_size=100"),
        (["--set", "graph=maybe"], "--set 'graph=maybe': expected true or false, got 'maybe'"),
        (["--set", "epochs=0"], "Invalid value for '--epochs': 0 is not in the range 1<=x<=10000000."),
        (["--config", "no.toml"], "no.toml: No such file or directory"),
        (["--config", "no.toml", "--resume", "run"], "--config conflicts with --resume: a run keeps its settings"),
        (["--resume", "run", "--set", "out=other"], "there is no folder of a run run"),
    ],
)
def test_a_mistake_in_the_command_is_named(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    result = xpnet("train", *arguments)
    assert (result.code, result.out, result.err) == (2, "", f"Error: {said}\n")


def test_help_is_printed_whatever_the_file_holds(file):
    file.write_text("epochs")
    result = xpnet("train", "--config", file, "--set", "no", "--help")
    assert (result.code, result.err) == (0, "")
    assert "--config FILE" in result.out


def test_a_path_is_read_where_the_encoding_lacks_its_letters(tmp_path, monkeypatch):
    """A run of a terminal in UTF-8 is repeated and described where nothing but ASCII is known."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zahlen-für-x.csv").write_text("a,y\n" + "".join(f"{place},{place * 0.7}\n" for place in range(40)))
    whole = ["--epochs", "1", "--device", "cpu", "--quiet"]
    assert xpnet("train", "--data", "zahlen-für-x.csv", *whole, "--out", "run").code == 0
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for command in (["train", "--config", "run", "--out", "again"], ["evaluate", "run"], ["report", "run"]):
        done = subprocess.run(
            [sys.executable, "-m", "training.cli", *command],
            env=ascii_only,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert (done.returncode, done.stderr) == (0, ""), command
