"""Files that are written whole or not at all, and what dead processes leave."""

import errno
import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from training.files import durable, leftovers


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def calls(monkeypatch):
    """The calls of a writer in their order: what is synced must be so before it is renamed, and its folder after it."""
    seen = []

    def watch(name):
        real = getattr(os, name)

        def call(*arguments, **options):
            kind = name
            if name == "fsync":
                kind = "fsync folder" if stat.S_ISDIR(os.fstat(arguments[0]).st_mode) else "fsync file"
            seen.append(kind)
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, call)

    for name in ("write", "fsync", "replace"):
        watch(name)
    return seen


def test_a_file_is_synced_before_and_its_folder_after_the_rename(tmp_path, calls):
    durable.write_atomically(tmp_path / "a", b"content")
    assert calls == ["write", "fsync file", "replace", "fsync folder"]
    assert (tmp_path / "a").read_bytes() == b"content"


def test_a_line_is_synced_and_the_folder_of_a_new_file_too(tmp_path, calls):
    durable.append_line(tmp_path / "a", "one")
    durable.append_line(tmp_path / "a", "two")
    assert calls == ["write", "fsync file", "fsync folder", "write", "fsync file"]
    assert (tmp_path / "a").read_text() == "one\ntwo\n"


@pytest.mark.parametrize("write", [durable.write_atomically, durable.append_line, durable.write_output])
@pytest.mark.parametrize("operation", ["open", "write", "fsync", "close"])
def test_an_error_names_the_file_and_leaves_what_was_there(tmp_path, monkeypatch, write, operation):
    (tmp_path / "a").write_text("before\n")
    real = getattr(os, operation)

    def fail(*arguments, **options):
        if operation == "close":
            real(*arguments, **options)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with monkeypatch.context() as patch:
        patch.setattr(os, operation, fail)
        content = "new" if write is durable.append_line else b"new"
        with pytest.raises(OSError, match="Disk quota exceeded") as raised:
            write(tmp_path / "a", content)
    assert raised.value.filename == str(tmp_path / "a")
    assert listing(tmp_path) == ["a"]
    # A line of which only the closing fails is there: nobody can take it back.
    assert (tmp_path / "a").read_text() in ("before\n", "before\nnew\n" if operation == "close" else "before\n")


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("before")

    def interrupt(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        durable.write_atomically(tmp_path / "a", b"new")
    assert listing(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "before"


def test_a_write_that_takes_a_part_goes_on(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: write(handle, content[:7]))
    durable.write_atomically(tmp_path / "a", bytes(range(256)))
    durable.append_line(tmp_path / "b", "0123456789" * 10)
    assert (tmp_path / "a").read_bytes() == bytes(range(256))
    assert (tmp_path / "b").read_text() == "0123456789" * 10 + "\n"


def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path, monkeypatch):
    def refuse(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    durable.write_atomically(tmp_path / "a", b"content")
    assert (tmp_path / "a").read_bytes() == b"content"


def test_an_output_goes_where_its_name_leads(tmp_path):
    (tmp_path / "real").write_text("before")
    os.symlink("real", tmp_path / "link")
    durable.write_output(tmp_path / "link", b"content")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"content"
    durable.write_output(os.devnull, b"content")
    assert not stat.S_ISREG(os.stat(os.devnull).st_mode)
    with pytest.raises(IsADirectoryError):
        durable.write_output(tmp_path, b"content")

    os.mkfifo(tmp_path / "pipe")
    received = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    durable.write_output(tmp_path / "pipe", b"content")
    reader.join(timeout=20)
    assert received == [b"content"]


def test_only_what_dead_processes_of_this_machine_left_is_removed(tmp_path):
    """Kept: what is in use, what another machine or another program made, and what only looks alike."""
    mine = leftovers.new_name(".xpnet")
    machine, _, birth = mine.split("-")[1:4]
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as other:
        other_birth = leftovers._birth(other.pid)
        living = f".xpnet-{machine}-{other.pid}-{other_birth}-0badcafe"
        reused = f".xpnet-{machine}-{other.pid}-{birth}-0badcafe"  # the number is another process's by now
        foreign = f".xpnet-{'0' * 8}-{2**22 + 1}-{birth}-0badcafe"
        dead = [f"{prefix}-{machine}-{2**22 + 1}-{birth}-0badcafe" for prefix in leftovers.PREFIXES]
        kept = [mine, living, foreign, ".xpnet", ".xpnet-1", ".downloads", f"{dead[0]}.txt", f"a{dead[0]}"]
        for name in [*kept, reused, *dead]:
            (tmp_path / name).write_text("")
        leftovers.remove(tmp_path)
        gone = [reused] if other_birth != leftovers._UNKNOWN else []
        assert listing(tmp_path) == sorted(kept if gone else [*kept, reused])
        other.stdin.close()
        while leftovers._birth(other.pid) == other_birth and other_birth != leftovers._UNKNOWN:
            time.sleep(0.01)  # until it is one that has ended and that nobody has asked about
        leftovers.remove(tmp_path)
        if gone:
            assert living not in listing(tmp_path)
    leftovers.remove(tmp_path)
    assert living not in listing(tmp_path)


def test_folders_are_removed_whole_and_links_are_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    machine, _, birth = leftovers.new_name(".xpnet").split("-")[1:4]
    folder, link = (tmp_path / f".download-{machine}-{2**22 + 1}-{birth}-{random}" for random in ("0" * 8, "1" * 8))
    (folder / "deep").mkdir(parents=True)
    os.symlink(precious, link)
    os.symlink(precious, folder / "deep" / "link")
    leftovers.remove(tmp_path)
    assert listing(tmp_path) == ["precious"]
    assert listing(precious) == ["file"]


def test_the_first_write_into_a_folder_removes_leftovers(tmp_path):
    machine, _, birth = leftovers.new_name(".xpnet").split("-")[1:4]
    old = tmp_path / f".xpnet-{machine}-{2**22 + 1}-{birth}-0badcafe"
    old.touch()
    durable.write_atomically(tmp_path / "a", b"")
    assert listing(tmp_path) == ["a"]


def test_names_do_not_repeat():
    assert len({leftovers.new_name(".xpnet") for _ in range(1000)}) == 1000
