"""Imported first by this package: refuses files that hide the packages it needs."""

import importlib.util
import os

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Loaded by its path: imported by name, it could be hidden itself.
_spec = importlib.util.spec_from_file_location("_neighbours", os.path.join(_ROOT, "backend", "neighbours.py"))
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
_module.require_own(_ROOT, "backend", "kernels")
