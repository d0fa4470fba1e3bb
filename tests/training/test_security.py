"""Promises of SECURITY.md about files that no other test checks."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from training.data import sources, transfer
from training.data.pictures import reading
from training.files import headers, json_text, npz
from training.loop import run_folder

ROOT = Path(__file__).parents[2]
PACKAGES = ("backend", "kernels", "layers", "training")
UNSAFE_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "runpy", "code"}
UNSAFE_CALLS = {"eval", "exec", "__import__"}
ASKED_FOR_BY_NAME = {
    "training/compat/book/pickle.py",
    "training/compat/book/mnist.py",  # only writes one
    "training/distributed/communicator.py",  # between the processes of one mpirun, never from a file
    "training/optim/formulas.py",  # the formulas of the optimizers' classes, which no file has
}


def unsafe(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from UNSAFE_MODULES & {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            yield from UNSAFE_MODULES & {(node.module or "").partition(".")[0]}
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in UNSAFE_CALLS:
                yield node.func.id
            yield from {"allow_pickle", "shell"} & {str(keyword.arg) for keyword in node.keywords}
            if isinstance(node.func, ast.Attribute) and ast.unparse(node.func) in (
                "numpy.load",
                "np.load",
                "os.system",
            ):
                yield ast.unparse(node.func)


def test_nothing_in_the_packages_can_run_what_a_file_says():
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    assert len(files) > 150
    found = {str(file.relative_to(ROOT)): [*unsafe(ast.parse(file.read_text("utf-8")))] for file in files}
    assert {file for file, names in found.items() if names} == ASKED_FOR_BY_NAME


@pytest.mark.parametrize(
    "line", ["import pickle", "from marshal import loads", "eval(x)", "f(shell=True)", "np.load(f)"]
)
def test_what_runs_code_is_seen(line):
    assert [*unsafe(ast.parse(line))]


AUDIT = """
import sys
from bench.faults import images, readers

watched = ("exec", "compile", "pickle.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "ctypes.")
ours = ("typing.py", "annotationlib.py")  # they evaluate the annotations of our own constructors

def watch(event, arguments):
    if event.startswith(watched):
        caller = sys._getframe(1).f_code.co_filename
        if not caller.startswith("<frozen importlib") and not caller.endswith(ours):
            seen.append((event, str(arguments)[:200], caller))

seen = []
for injector in (readers, images):
    assert not [failure for failure in injector.run(60, 1) if failure]  # what they import is ours
sys.addaudithook(watch)
for injector in (readers, images):
    assert not [failure for failure in injector.run(700, 2) if failure]
assert not seen, seen
compile("1", "<seen>", "eval")
assert seen
"""


def test_no_file_makes_python_compile_unpickle_or_start_anything():
    done = subprocess.run([sys.executable, "-c", AUDIT], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_figures_are_those_of_the_code():
    page = " ".join((ROOT / "SECURITY.md").read_text("utf-8").split())
    for words in (
        f"header of at most {json_text.MAX_BYTES >> 20} MB",
        f"list of members of at most {npz.MAX_LIST >> 20} MB",
        f"at most {headers.DEFLATE_RATIO:,} times the file's",
        f"at most {json_text.MAX_BYTES >> 20} MB of JSON a text or line",
        f"metrics of at most {run_folder.MAX_METRICS >> 20} MB and {run_folder.MAX_EPOCHS:,} lines",
        f"files of at most {reading.LARGEST_FILE >> 20} MB and {reading.MOST_PIXELS:,} pixels",
        f"less than {transfer.PIECE >> 10} kB in {transfer.STALL_SECONDS:g} s",
        f"longer than {transfer.LEAST_SECONDS:g} s and a second for each {transfer.LEAST_RATE // 1000} kB",
    ):
        assert words in page, words
    assert {kind.upper() for kind in re.findall(r"PNG|JPEG|BMP|GIF|WebP|TIFF", page)} == set(reading.FORMATS)
    plain = [url for source in sources.SOURCES.values() for url in source.mirrors if not url.startswith("https://")]
    assert len(plain) == 1
    assert all(len(source.sha256) == 4 for source in sources.SOURCES.values())


def test_every_test_that_is_named_exists():
    page = (ROOT / "SECURITY.md").read_text("utf-8")
    for name in re.findall(r"test_\w+\.py", page):
        assert len([*(ROOT / "tests" / "training").rglob(name)]) == 1, name
    for line in re.findall(r"python -m bench faults ([\w ]+)`", page):
        assert all((ROOT / "bench" / "faults" / f"{name}.py").is_file() for name in line.split())
