"""Downloads from a real server on this machine: whole or not at all."""

import gzip
import hashlib
import http.server
import logging
import threading

import numpy as np
import pytest

from training.data import DataError, load
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
    monkeypatch.setitem(SOURCES, "tiny", Source("Tiny", ("a", "b", "c"), tuple(sums), mirrors))
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
    with pytest.raises(DataError, match="nowhere: there is no such folder"):
        load("tiny", tmp_path / "nowhere", download=True)
    assert server.asked == []


def test_a_progress_bar_and_nothing_else_is_printed(server, files, capsys, caplog):
    caplog.set_level(logging.INFO)
    serve(server, files, "one")
    load("tiny", download=True)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert all(name in printed.err for name in files)
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


def test_the_platform_has_a_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("XPNET_CACHE_DIR", raising=False)
    assert cache_dir().is_absolute()
    assert "xpnet" in cache_dir().parts
    monkeypatch.setenv("XPNET_CACHE_DIR", "~/somewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "somewhere"
