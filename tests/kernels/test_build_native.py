"""How the C kernels are built: for which systems, from which files, and what a wheel becomes with and without them."""

import importlib.util
import re
import shutil
import struct
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.tags import parse_tag

from kernels.core import build_native, native
from tests.conftest import require_c_kernels

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
CORE = Path(build_native.__file__).parent


@pytest.mark.parametrize(
    ("system", "machine", "levels"),
    [
        ("Linux", "x86_64", ["v3", "v4"]),
        ("Linux", "aarch64", ["arm64"]),
        ("Darwin", "x86_64", ["v3", "v4"]),
        ("Darwin", "arm64", ["arm64"]),
        ("Windows", "AMD64", ["v3", "v4"]),
        ("FreeBSD", "amd64", None),
        ("Linux", "riscv64", None),
    ],
)
def test_targets(monkeypatch, system, machine, levels):
    monkeypatch.setattr(build_native.platform, "system", lambda: system)
    monkeypatch.setattr(build_native.platform, "machine", lambda: machine)
    target = build_native.this_target()
    assert (target and [level.name for level in target.levels]) == levels
    if target:
        assert len(parse_tag(f"py3-none-{target.tag}")) == (2 if system == "Linux" else 1)
    monkeypatch.setattr(build_native.sys, "maxsize", (1 << 31) - 1)
    assert build_native.this_target() is None


def test_the_compiler_rounds_every_operation_in_the_order_in_which_it_stands():
    """Contracting a·b + c saves a rounding; -ffast-math and its parts also change orders, NaN and signs of zero."""
    assert "-ffp-contract=off" in build_native.FLAGS
    parts = "fast|unsafe|associative|reciprocal|finite-math|no-signed-zeros|no-signaling|approx"
    assert not [flag for flag in build_native.FLAGS if re.search(parts, flag)]
    # What these two leave out is where errno and traps would be set: no result depends on them.
    assert [flag for flag in build_native.FLAGS if "math" in flag] == ["-fno-math-errno", "-fno-trapping-math"]


def section(content, kind):
    """Return the bytes of the first section of a kind of a 64-bit ELF file, and those of the section it links to."""
    (at,), (size, count) = struct.unpack_from("<Q", content, 40), struct.unpack_from("<HH", content, 58)
    heads = [struct.unpack_from("<IIQQQQIIQQ", content, at + i * size) for i in range(count)]
    own = next(head for head in heads if head[1] == kind)
    return [content[head[4] : head[4] + head[5]] for head in (own, heads[own[6]])]


def test_the_library_for_linux_needs_no_other():
    """Not even a libc of some version: it runs with any, by three functions that each has."""
    require_c_kernels()
    content = native.LIBRARY.read_bytes()
    if content[:4] != b"\x7fELF":
        pytest.skip("the library is that of another system than Linux")
    dynamic, _ = section(content, 6)
    needed = 1
    assert needed not in [tag for tag, _ in struct.iter_unpack("<qQ", dynamic)]
    assert b"GLIBC_" not in content
    symbols, names = section(content, 11)
    undefined = [name for name, _, _, place, _, _ in list(struct.iter_unpack("<IBBHQQ", symbols))[1:] if place == 0]
    functions = {names[at : names.index(b"\0", at)].decode() for at in undefined}
    assert functions == {"memcpy", "memset", "sched_yield"}


@pytest.fixture
def copy(tmp_path):
    """Return the module of a copy of ``kernels`` without a library, as a build tool loads it: by its path."""
    folder = tmp_path / "kernels"
    shutil.copytree(CORE.parent, folder, ignore=shutil.ignore_patterns("native.lib*", "__pycache__"))
    return load(folder / "core" / "build_native.py")


def load(path):
    spec = importlib.util.spec_from_file_location("copied_build_native", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_digest_is_of_all_that_the_library_is_made_from(copy):
    digests = {build_native.digest(), copy.digest()}
    assert len(digests) == 1
    folder = copy.KERNELS
    files = [folder / "activations.c", folder / "core" / "vectors.h", folder / "core" / "cpu.c", Path(copy.__file__)]
    for file in files:
        file.write_bytes(file.read_bytes() + b"\n")
        digests.add(copy.digest())
    shutil.copy(folder / "activations.c", folder / "another.c")
    digests.add(copy.digest())
    (folder / "activations.py").touch()
    assert copy.digest() in digests
    assert len(digests) == 6


@pytest.fixture
def hook(copy, monkeypatch):
    """Return a function that makes the hook of a copy, for a target of Hatchling, and what was built by it."""
    name = "hatchling.builders.hooks.plugin.interface"
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:count]), ModuleType(".".join(parts[:count])))
    sys.modules[name].BuildHookInterface = SimpleNamespace
    monkeypatch.delenv("XPNET_NATIVE", raising=False)
    module = load(copy.__file__)
    built = []
    monkeypatch.setattr(module, "build", lambda target, library: built.append((target, library)))

    def made(target_name):
        return module.Hook(target_name=target_name), built, module

    return made


def initialized(hook):
    data = {"artifacts": []}
    hook.initialize("standard", data)
    return data


def test_a_wheel_has_the_library_and_the_tag_of_its_system(hook):
    made, built, module = hook("wheel")
    target = module.this_target()
    if target is None:
        pytest.skip("there are no C kernels for this machine")
    assert made.dependencies() == [build_native.COMPILER]
    data = initialized(made)
    assert built == [(target, module.KERNELS / "core" / "native.lib")]
    assert data == {
        "artifacts": ["/kernels/core/native.lib"],
        "pure_python": False,
        "tag": f"py3-none-{target.tag}",
    }


@pytest.mark.parametrize("reason", ["XPNET_NATIVE=0", "no target", "sdist"])
def test_without_the_library_a_wheel_is_for_every_system(hook, monkeypatch, reason):
    made, built, module = hook("sdist" if reason == "sdist" else "wheel")
    if reason == "XPNET_NATIVE=0":
        monkeypatch.setenv("XPNET_NATIVE", "0")
    if reason == "no target":
        monkeypatch.setattr(module, "TARGETS", {})
    assert made.dependencies() == []
    assert initialized(made) == {"artifacts": []}
    assert built == []


def test_a_failing_compiler_ends_the_installation_with_a_way_out(hook, monkeypatch):
    made, _, module = hook("wheel")

    def fails(target, library):
        raise RuntimeError("zig cc …\nerror: out of memory")

    monkeypatch.setattr(module, "build", fails)
    monkeypatch.setattr(module, "this_target", lambda: module.TARGETS["Linux", "x86_64"])
    with pytest.raises(SystemExit, match=r"error: out of memory\nWith XPNET_NATIVE=0 xpnet is installed without C"):
        initialized(made)


def test_a_compiler_that_fails_is_named_with_what_it_printed(tmp_path):
    (tmp_path / "wrong.c").write_text("#error wrong\n")
    target = build_native.TARGETS["Linux", "x86_64"]
    failing = [sys.executable, "-c", "import sys; sys.exit('it failed')"]
    with pytest.raises(RuntimeError, match="it failed"):
        build_native.build(target, tmp_path / "made.lib", compiler=failing, files=[tmp_path / "wrong.c"])
    assert not (tmp_path / "made.lib").exists()


def test_the_compiler_has_a_place_where_no_home_can_be_written(tmp_path, monkeypatch):
    for name in ("ZIG_GLOBAL_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    assert build_native._cache_folder(tmp_path) == tmp_path / "home" / ".cache" / "zig"
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "file"))
    assert build_native._cache_folder(tmp_path) == tmp_path
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", str(tmp_path / "given"))
    assert build_native._cache_folder(tmp_path) == tmp_path / "given"


def test_one_version_of_the_compiler_is_named():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extra = [Requirement(text) for text in project["project"]["optional-dependencies"]["test"]]
    assert Requirement(build_native.COMPILER) in extra
