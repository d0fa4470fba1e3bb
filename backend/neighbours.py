"""Notice where a file of the user's hides one of these packages.

``layers``, ``kernels``, ``backend`` and ``training`` are names that a program of one's own may have, too. Python takes
the first on its path, and what failed then would be an import of some name from the wrong file.
"""

from __future__ import annotations

import importlib.util
import os
import sys


def require_own(root: str, *names: str) -> None:
    """Raises unless each of the packages is the one that lies in the folder ``root``.

    Raises:
        ImportError: another file would be imported by that name; the message has its path and the remedy.
    """
    folder = os.path.realpath(root)
    for name in names:
        module = sys.modules.get(name)
        spec = importlib.util.find_spec(name) if module is None else None
        found = getattr(module, "__file__", None) or (spec.origin if spec else None)
        if found is None or _folder(found) == folder:
            continue  # where none is found, the import says so
        raise ImportError(
            f"{found} hides the package {name!r} of xpnet in {folder}: rename that file, or start Python where it is "
            "not first on the path",
            name=name,
            path=found,
        )


def _folder(file: str) -> str:
    """Where the package lies whose ``__init__`` this is; of a module on its own, somewhere else than any package."""
    place = os.path.realpath(file)
    return os.path.dirname(os.path.dirname(place)) if os.path.basename(place).startswith("__init__.") else place
