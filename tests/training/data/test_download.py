"""Downloads from a real server on this machine: whole or not at all."""

import gzip
import hashlib
import http.server
import logging
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.support.terminals import Terminal
from training.data import DataError, load, transfer
from training.data.download import cache_dir
from training.data.idx import write_idx
from training.data.sources import FILES, SOURCES, Source


class Server(http.server.ThreadingHTTPServer):
    """Serves ``self.pages``, path → bytes or function of the request handler, and notes what was asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages = {}
        self.asked = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        page = self.server.pages.get(self.path)
        if page is None:
            self.send_error(404)
        elif callable(page):
            page(self)
        else:
            reply(self, page)

    def log_message(self, *args):
        pass


def reply(handler, content, announced=None, **headers):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content) if announced is None else announced))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(content)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def files(server, monkeypatch, tmp_path):
    """The gzipped files of the set "tiny". Its mirrors are /one/ and /two/ of the server, which are empty yet."""
    parts = (np.arange(12).reshape(3, 2, 2), [2, 0, 1], np.arange(8).reshape(2, 2, 2), [1, 2])
    contents, sums = {}, []
    for (name, _), part in zip(FILES, parts, strict=True):
        sums.append(hashlib.sha256(write_idx(tmp_path / "file", np.array(part, np.uint8))).hexdigest())
        contents[f"{name}.gz"] = gzip.compress((tmp_path / "file").read_bytes())
    mirrors = (f"{server.url}/one/", f"{server.url}/two/")
    monkeypatch.setitem(SOURCES, "tiny", Source("Tiny", ("a", "b", "c"), tuple(sums), mirrors, (28, 11, 24, 10)))
    monkeypatch.delenv("XPNET_DATA_DIR", raising=False)
    monkeypatch.setenv("XPNET_CACHE_DIR", str(tmp_path / "deep" / "cache"))
    return contents


def serve(server, files, mirror):
    server.pages.update({f"/{mirror}/{name}": content for name, content in files.items()})


def test_downloads_into_the_cache_once(server, files):
    serve(server, files, "one")
    data = load("tiny", download=True)
    assert data.train_labels.tolist() == [2, 0, 1]
    assert sorted(path.name for path in cache_dir().rglob("*")) == sorted([*(name for name, _ in FILES), "tiny"])
    assert server.asked == [f"/one/{name}" for name in files]
    for name, content in files.items():  # unpacked: what is read again and again is not unpacked again and again
        assert (cache_dir() / "tiny" / name.removesuffix(".gz")).read_bytes() == gzip.decompress(content)
    assert load("tiny", download=True).test_labels.tolist() == [1, 2]
    assert load("tiny").test_labels.tolist() == [1, 2]
    assert len(server.asked) == 4


def test_nothing_is_downloaded_unasked(server, files):
    serve(server, files, "one")
    with pytest.raises(DataError, match="download=True"):
        load("tiny")
    assert server.asked == []


def test_nothing_is_downloaded_in_place_of_a_given_folder(server, files, tmp_path):
    serve(server, files, "one")
    with pytest.raises(DataError, match="nowhere: the folder does not exist"):
        load("tiny", tmp_path / "nowhere", download=True)
    assert server.asked == []


def test_a_progress_bar_and_nothing_else_is_printed(server, files, monkeypatch, capsys, caplog):
    caplog.set_level(logging.INFO)
    serve(server, files, "one")
    monkeypatch.setenv("COLUMNS", "100")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Terminal())
        load("tiny", download=True)
        lines = sys.stderr.lines
    assert capsys.readouterr() == ("", "")
    assert all(any(line.startswith(name) for line in lines) for name in files)
    assert not [record for record in caplog.records if not record.name.startswith(("urllib3", "xpnet"))]


def test_no_progress_bar_where_none_is_wanted(server, files, capsys):
    serve(server, files, "one")
    load("tiny", download=True, progress=False)
    printed = capsys.readouterr()
    assert printed.out + printed.err == ""


def truncated(content):
    return lambda handler: reply(handler, content[: len(content) // 2], announced=len(content))


def cut_short(content):
    return content[: len(content) // 2]


def hang_up(content):
    return lambda handler: handler.connection.close()


def server_error(content):
    return lambda handler: handler.send_error(503)


def wrong(content):
    array = bytearray(gzip.decompress(content))
    array[-1] ^= 1
    return gzip.compress(bytes(array))


def web_page(content):
    return b"<html>Log in to this network first</html>"


FAULTS = {
    truncated: "IncompleteRead",
    cut_short: "damaged gzip data",
    hang_up: "Connection",
    server_error: "503",
    wrong: "SHA-256",
    web_page: "begins with the bytes 3c 68 74 6d",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("victim", [0, 3], ids=["first", "last"])
def test_a_faulty_mirror_is_passed_over(server, files, fault, victim):
    serve(server, files, "one")
    serve(server, files, "two")
    name = list(files)[victim]
    server.pages[f"/one/{name}"] = fault(files[name])
    assert load("tiny", download=True, progress=False).train_labels.tolist() == [2, 0, 1]
    assert server.asked.count(f"/two/{name}") == 1
    assert len(server.asked) == 5


@pytest.mark.parametrize("fault", [*FAULTS, None], ids=lambda fault: fault.__name__ if fault else "404")
@pytest.mark.parametrize("victim", [0, 3], ids=["first", "last"])
def test_a_failed_download_leaves_nothing_and_says_what_to_do(server, files, tmp_path, fault, victim):
    name = list(files)[victim]
    for mirror in ("one", "two"):
        serve(server, files, mirror)
        if fault:
            server.pages[f"/{mirror}/{name}"] = fault(files[name])
        else:
            del server.pages[f"/{mirror}/{name}"]
    with pytest.raises(DataError) as error:
        load("tiny", download=True, progress=True)
    message = str(error.value)
    for words in (
        f"{server.url}/one/{name}: ",
        f"{server.url}/two/{name}: ",
        FAULTS[fault] if fault else "404",
    ):
        assert words in message
    assert ".download-" not in message  # the temporary folder is gone
    for words in ("--data-dir", "XPNET_DATA_DIR", "mnist10k", *(name for name, _ in FILES)):
        assert words in message
    assert not (tmp_path / "deep").exists()


def test_a_failed_download_leaves_what_was_there(server, files):
    (cache_dir() / "mnist").mkdir(parents=True)
    with pytest.raises(DataError, match="404"):
        load("tiny", download=True)
    assert [path.name for path in cache_dir().rglob("*")] == ["mnist"]


def test_ctrl_c_leaves_nothing(server, files, tmp_path, monkeypatch):
    serve(server, files, "one")

    def interrupt(*args, **options):
        assert list(cache_dir().rglob("*.gz"))  # in the midst of it
        raise KeyboardInterrupt

    monkeypatch.setattr("training.data.download.read_idx", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load("tiny", download=True)
    assert not (tmp_path / "deep").exists()


def test_an_incomplete_cache_is_completed(server, files):
    serve(server, files, "one")
    load("tiny", download=True)
    (cache_dir() / "tiny" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="lacks t10k-labels-idx1-ubyte\n"):
        load("tiny")
    assert load("tiny", download=True).test_labels.tolist() == [1, 2]


def test_a_cache_of_gzipped_files_is_read(server, files):
    (cache_dir() / "tiny").mkdir(parents=True)
    for name, content in files.items():
        (cache_dir() / "tiny" / name).write_bytes(content)
    assert load("tiny", download=True).test_labels.tolist() == [1, 2]
    assert server.asked == []


def test_a_server_that_unpacks_is_understood(server, files):
    for name, content in files.items():
        server.pages[f"/one/{name}"] = lambda handler, c=content: reply(handler, c, Content_Encoding="gzip")
    assert load("tiny", download=True).test_labels.tolist() == [1, 2]
    assert (cache_dir() / "tiny" / "t10k-labels-idx1-ubyte").read_bytes().startswith(b"\0\0\x08\x01")


def test_a_cache_that_cannot_be_written_is_an_error_in_words(server, files, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XPNET_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match=r"Not a directory.*\n.*--data-dir"):
        load("tiny", download=True)


def test_a_disk_that_is_full_is_told_as_it_is(server, files, monkeypatch, tmp_path):
    """It is not the mirror's fault, and not mended by another folder; nothing is left."""
    serve(server, files, "one")

    def fail(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left on device"):
        load("tiny", download=True)
    assert not any(tmp_path.rglob(".*"))


def test_the_platform_has_a_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("XPNET_CACHE_DIR", raising=False)
    assert cache_dir().is_absolute()
    assert "xpnet" in cache_dir().parts
    monkeypatch.setenv("XPNET_CACHE_DIR", "~/somewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "somewhere"


@pytest.fixture
def impatient(monkeypatch):
    """Waits for a stalled mirror 0.4 seconds, and for a slow one a second."""
    monkeypatch.setattr(transfer, "STALL_SECONDS", 0.4)
    monkeypatch.setattr(transfer, "LEAST_SECONDS", 1.0)
    monkeypatch.setattr(transfer, "LEAST_RATE", 1e12)


def pour(handler, piece, pause, pieces=400):
    """Sends a piece again and again, until the other side has gone."""
    try:
        for _ in range(pieces):
            handler.wfile.write(piece)
            time.sleep(pause)
    except OSError:
        return


def without_a_length(piece, pause):
    def page(handler):
        handler.send_response(200)
        handler.end_headers()
        pour(handler, piece, pause)

    return page


def in_chunks(piece, pause):
    def page(handler):
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        pour(handler, f"{len(piece):x}\r\n".encode() + piece + b"\r\n", pause)

    return page


def silent(handler):
    time.sleep(2)


def drips_headers(handler):
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n")
    pour(handler, b"X", 0.02)


HOSTILE = {
    "announces too much": (lambda handler: reply(handler, b"", announced=10**13), "sends more than 1,0.* bytes"),
    "sends too much": (lambda handler: reply(handler, bytes(50_000)), "sends more than 1,0.* bytes"),
    "never ends": (without_a_length(bytes(500), 0.001), "sends more than 1,0.* bytes"),
    "never ends, in chunks": (in_chunks(bytes(500), 0.001), "sends more than 1,0.* bytes"),
    "drips": (without_a_length(b"x", 0.02), "sends less than 8,192 bytes in 0.4 s"),
    "drips in chunks": (in_chunks(b"x", 0.02), "sends less than 8,192 bytes in 0.4 s"),
    "drips the head": (drips_headers, "sends less than 8,192 bytes in 0.4 s"),
    "says nothing": (silent, "sends less than 8,192 bytes in 0.4 s|[Tt]imed out"),
    "leads round and round": (
        lambda handler: (
            handler.send_response(302),
            handler.send_header("Location", handler.path),
            handler.end_headers(),
        ),
        "30 redirects",
    ),
    "leads into the files": (
        lambda handler: (
            handler.send_response(302),
            handler.send_header("Location", "file:///etc/passwd"),
            handler.end_headers(),
        ),
        "No connection adapters",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_mirror_is_cut_off(server, files, impatient, case):
    page, words = HOSTILE[case]
    serve(server, files, "two")
    name = list(files)[1]
    serve(server, files, "one")
    server.pages[f"/one/{name}"] = page
    start = time.monotonic()
    assert load("tiny", download=True, progress=False).train_labels.tolist() == [2, 0, 1]
    assert server.asked[-1] == f"/one/{list(files)[3]}"
    server.pages[f"/two/{name}"] = page
    (cache_dir() / "tiny" / name.removesuffix(".gz")).unlink()
    with pytest.raises(DataError, match=words):
        load("tiny", download=True, progress=False)
    assert time.monotonic() - start < 30  # three transfers of at most a second, on a busy machine
    assert sorted(path.name for path in cache_dir().iterdir()) == ["tiny"]


def test_a_mirror_that_is_always_too_slow_is_cut_off(server, files, impatient, monkeypatch):
    monkeypatch.setattr(transfer, "PIECE", 1)
    server.pages = {f"/{mirror}/{next(iter(files))}": without_a_length(b"x", 0.02) for mirror in ("one", "two")}
    with pytest.raises(DataError, match=r"is not done after 1 s"):
        load("tiny", download=True, progress=False)


def test_an_endless_mirror_writes_no_more_than_the_file_may_have(server, files, tmp_path):
    server.pages["/x"] = without_a_length(bytes(500), 0)
    with pytest.raises(transfer.TransferError, match="more than 3,000 bytes"):
        transfer.transfer(f"{server.url}/x", tmp_path / "x", 3000)
    assert (tmp_path / "x").stat().st_size <= 3000


def test_no_thread_is_an_error_in_words(server, files, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(transfer.threading.Thread, "start", start)
    with pytest.raises(DataError, match="no thread can be started to receive it: can't start new thread"):
        load("tiny", download=True, progress=False)


def test_what_a_server_says_is_cut_short(server, files):
    serve(server, files, "one")
    for mirror in ("one", "two"):
        server.pages[f"/{mirror}/{next(iter(files))}"] = lambda handler: handler.send_error(500, "x" * 5000)
    with pytest.raises(DataError) as error:
        load("tiny", download=True, progress=False)
    assert len(str(error.value)) < 3000


def bit(content):
    return content[:-1] + bytes([content[-1] ^ 1])


DAMAGE = {
    "a wrong bit": bit,
    "cut short": lambda content: content[:-1],
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "too long": lambda content: content + b"\0",
    "a web page": web_page,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("victim", range(4))
def test_a_damaged_cache_heals(server, files, victim, damage):
    serve(server, files, "one")
    good = load("tiny", download=True, progress=False)
    folder = cache_dir() / "tiny"
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "a note of mine").write_text("mine")
    file = folder / FILES[victim][0]
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    with pytest.raises(DataError, match=rf"{file}: .*\n.*download=True"):
        load("tiny")
    healed = load("tiny", download=True, progress=False)
    for part in ("train_images", "train_labels", "test_images", "test_labels"):
        np.testing.assert_array_equal(getattr(healed, part), getattr(good, part))
    assert len(server.asked) == 8
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert found == {**contents, "a note of mine": b"mine"}
    assert [path.name for path in cache_dir().iterdir()] == ["tiny"]
    load("tiny")


def test_a_damaged_gzipped_cache_heals(server, files):
    serve(server, files, "one")
    (cache_dir() / "tiny").mkdir(parents=True)
    for name, content in files.items():
        (cache_dir() / "tiny" / name).write_bytes(content[:-9])
    assert load("tiny", download=True, progress=False).test_labels.tolist() == [1, 2]


@pytest.mark.parametrize("fault", [*FAULTS, None], ids=lambda fault: fault.__name__ if fault else "404")
def test_a_cache_that_cannot_be_healed_stays_as_it_is(server, files, fault):
    serve(server, files, "one")
    load("tiny", download=True, progress=False)
    folder = cache_dir() / "tiny"
    (folder / FILES[0][0]).write_bytes(b"damaged")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    name = list(files)[3]
    if fault:
        server.pages[f"/one/{name}"] = fault(files[name])
    else:
        del server.pages[f"/one/{name}"]
    with pytest.raises(DataError) as error:
        load("tiny", download=True, progress=False)
    assert f"{folder / FILES[0][0]}: begins with the bytes" in str(error.value)
    assert f"/one/{name}: " in str(error.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("way", ["data_dir", "environment", "environment is the cache"])
def test_a_folder_of_the_users_own_is_never_written_to(server, files, tmp_path, monkeypatch, way):
    serve(server, files, "one")
    load("tiny", download=True, progress=False)
    own = cache_dir() if way.endswith("cache") else tmp_path / "own"
    if not way.endswith("cache"):
        (cache_dir() / "tiny").rename(own)
    files_of_own = [path for path in own.rglob("*") if path.is_file()]
    files_of_own[2].write_bytes(b"damaged")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files_of_own}
    if way != "data_dir":
        monkeypatch.setenv("XPNET_DATA_DIR", str(own))
    with pytest.raises(DataError, match=f"{files_of_own[2]}: begins with"):
        load("tiny", own if way == "data_dir" else None, download=True, progress=False)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in own.rglob("*") if path.is_file()} == before
    assert len(server.asked) == 4


def test_a_link_in_the_cache_is_not_followed_to_write(server, files, tmp_path):
    serve(server, files, "one")
    load("tiny", download=True, progress=False)
    (cache_dir() / "tiny").rename(tmp_path / "own")
    (cache_dir() / "tiny").symlink_to(tmp_path / "own")
    assert load("tiny").test_labels.tolist() == [1, 2]
    (tmp_path / "own" / FILES[0][0]).write_bytes(b"damaged")
    with pytest.raises(DataError, match="tiny is a link, which is not followed"):
        load("tiny", download=True, progress=False)
    assert (tmp_path / "own" / FILES[0][0]).read_bytes() == b"damaged"


def test_several_processes_may_heal_at_once(server, files):
    serve(server, files, "one")
    load("tiny", download=True, progress=False)
    (cache_dir() / "tiny" / FILES[0][0]).write_bytes(b"")
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(load, "tiny", download=True, progress=False) for _ in range(4)]
        assert [data.result().test_labels.tolist() for data in found] == [[1, 2]] * 4
    assert [path.name for path in cache_dir().iterdir()] == ["tiny"]


def test_sizes_are_those_of_the_files(data_dir):
    for name in ("mnist", "fashion-mnist"):
        data = load(name, data_dir)
        sizes = [
            16 + data.train_images.size,
            8 + data.train_labels.size,
            16 + data.test_images.size,
            8 + data.test_labels.size,
        ]
        assert tuple(sizes) == SOURCES[name].sizes


@pytest.mark.parametrize("at", range(4))
def test_healing_that_is_interrupted_leaves_whole_files_and_goes_on(server, files, monkeypatch, at):
    serve(server, files, "one")
    load("tiny", download=True, progress=False)
    folder = cache_dir() / "tiny"
    good = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.write_bytes(b"damaged")
    moves = []

    def replace(source, target, really=os.replace):
        if Path(target).parent == folder:
            moves.append(target)
            if len(moves) == at + 1:
                raise KeyboardInterrupt
        really(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            load("tiny", download=True, progress=False)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert all(content in (b"damaged", good[name]) for name, content in found.items())
    assert sum(content == b"damaged" for content in found.values()) == 4 - at
    assert load("tiny", download=True, progress=False).test_labels.tolist() == [1, 2]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == good
    assert [path.name for path in cache_dir().iterdir()] == ["tiny"]


def test_a_first_download_puts_all_files_there_at_once(server, files, monkeypatch):
    serve(server, files, "one")
    seen = []

    def rename(source, target, really=Path.rename):
        seen.append((sorted(path.name for path in source.iterdir()), Path(target).exists()))
        return really(source, target)

    monkeypatch.setattr(Path, "rename", rename)
    load("tiny", download=True, progress=False)
    assert seen == [(sorted(name for name, _ in FILES), False)]


def test_a_stalled_mirror_can_be_interrupted(server, files, tmp_path):
    """In a process of its own: the signal comes while the main thread waits."""
    server.pages["/x"] = silent
    program = (
        "import signal, threading, os; from pathlib import Path; from training.data.transfer import transfer\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
        f"transfer({server.url + '/x'!r}, Path({str(tmp_path / 'x')!r}), 1000)"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "KeyboardInterrupt" in done.stderr
    assert time.monotonic() - start < 25  # it would wait for 30 s
