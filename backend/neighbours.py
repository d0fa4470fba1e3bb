"""Notice where another file hides one of these packages.

``layers``, ``kernels``, ``backend`` and ``training`` are names that a user's program may have, too. Python takes the
first on its path, and what failed then would be an import of some name from the wrong file. ``kernels`` is a namespace
package, which works next to another distribution's package of that name in one folder of installed packages, but not in
two folders.
"""

from __future__ import annotations

import importlib.util
import os
import sys


def require_own(root: str, *names: str) -> None:
    """Raise unless each of the packages is the one in the folder ``root``.

    Raises:
        ImportError: another file would be imported by that name; the message has its path and the remedy.
    """
    folder = os.path.realpath(root)
    for name in names:
        module = sys.modules.get(name)
        spec = importlib.util.find_spec(name) if module is None else None
        found = getattr(module, "__file__", None) or (spec.origin if spec else None)
        if found is None or _folder(found) == folder:
            continue  # a namespace package has no file; where nothing is found, the import says so
        site = _folder(found)
        installed = os.path.basename(site) in ("site-packages", "dist-packages")
        raise ImportError(
            f"{found} hides the package {name!r} of xpnet in {folder}: "
            + (
                f"install xpnet into {site}, too, and not as an editable install"
                if installed
                else "rename that file, or start Python where it is not first on the path"
            ),
            name=name,
            path=found,
        )


def _folder(file: str) -> str:
    """Return the folder that holds the package whose ``__init__`` this is; for a plain module, the file itself."""
    place = os.path.realpath(file)
    return os.path.dirname(os.path.dirname(place)) if os.path.basename(place).startswith("__init__.") else place
