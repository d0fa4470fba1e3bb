"""Hold the source archive and the wheels of a folder to the files that git knows.

The archive has all of them but those for this repository's own machinery; a wheel has the packages', and the library of
C kernels where it was built with one.
"""

import pathlib
import subprocess
import sys
import tarfile
import zipfile

PACKAGES = ("backend/", "kernels/", "layers/", "training/")
LIBRARY = "kernels/core/native.lib"

folder = pathlib.Path(sys.argv[1])
known = set(subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.split("\n")) - {""}
packages = {name for name in known if name.startswith(PACKAGES)}


def hold(what: str, given: set[str], expected: set[str]) -> None:
    """Exit with the names by which two sets differ."""
    print(f"{what}: {len(given)} files")
    if given != expected:
        sys.exit(f"{what} lacks {sorted(expected - given)}; more than expected: {sorted(given - expected)}")


(archive,) = folder.glob("*.tar.gz")
with tarfile.open(archive) as opened:
    names = {name.partition("/")[2] for name in opened.getnames() if not opened.getmember(name).isdir()}
ours = {name for name in known if not name.startswith((".github/", ".ci/", ".pre-commit"))}
hold(archive.name, names, ours | {"PKG-INFO"})
(pure,), (whole,) = (folder / "pure").glob("*.whl"), folder.glob("*.whl")
for wheel, library, tag in ((pure, set(), "-py3-none-any.whl"), (whole, {LIBRARY}, "_x86_64.whl")):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    hold(wheel.name, names, packages | library)
    if not wheel.name.endswith(tag):
        sys.exit(f"the wheel's name must end with {tag}, got {wheel.name}")
print("one for every Python from 3.10 on:", whole.name)
