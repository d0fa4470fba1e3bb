"""Compile and link the C kernels for Linux, macOS and Windows: that there is a library for each, not that it runs."""

import tempfile
from pathlib import Path

from kernels.core import build_native

MAGIC = {"Linux": b"\x7fELF", "Darwin": b"\xcf\xfa\xed\xfe", "Windows": b"MZ"}


def main() -> None:
    """Build for each system but this one, whose library is built to be used, faster than that, and look at what kind of
    file came out."""
    with tempfile.TemporaryDirectory() as place:
        for (system, machine), target in build_native.TARGETS.items():
            if target is build_native.this_target():
                continue
            library = Path(place) / f"{system}-{machine}.lib"
            build_native.build(target, library, flags=["-O1"])
            content = library.read_bytes()
            assert content.startswith(MAGIC[system]), content[:4]
            names = (b"relu_float_", b"xpnet_sources", build_native.digest().encode())
            assert all(name in content for name in names), f"{library.name} lacks functions"
            print(f"{system} {machine}: {len(content):,} bytes", flush=True)


if __name__ == "__main__":
    main()
