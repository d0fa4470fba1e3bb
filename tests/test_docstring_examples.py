"""Run the examples in docstrings: a user who types one gets what the docstring shows."""

import ast
import doctest
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("backend", "kernels", "layers", "training")
LEAST = 20
"""Public functions, classes and methods that have an example."""


def _examples(node: ast.AST, name: str, filename: str) -> Iterator[doctest.DocTest]:
    """Yield the examples of a module, class or function and of all inside it, each in a namespace of its own."""
    text = ast.get_docstring(node) if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) else None
    if text and ">>>" in text:
        line = 0 if isinstance(node, ast.Module) else node.lineno - 1
        yield doctest.DocTestParser().get_doctest(text, {"__name__": "__main__"}, name, filename, line)
    for child in getattr(node, "body", ()):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef)):
            yield from _examples(child, f"{name}.{child.name}", filename)


def _collect() -> Iterator[doctest.DocTest]:
    # The source is read, not imported: decorated functions are found as well, and collection stays fast.
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if ">>>" in source:
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            yield from _examples(ast.parse(source), name, str(path))


def _parameter(example: doctest.DocTest) -> object:
    needs_gpu = any('use("cuda")' in part.source for part in example.examples)
    return pytest.param(example, id=example.name, marks=[pytest.mark.gpu] if needs_gpu else [])


EXAMPLES = list(_collect())


@pytest.mark.parametrize("example", [_parameter(example) for example in EXAMPLES])
def test_an_example_shows_what_happens(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what it writes
    told: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=told.append)
    assert result.attempted
    assert not result.failed, "".join(told)


def test_enough_public_objects_have_an_example():
    public = [example.name for example in EXAMPLES if not any(part[0] == "_" for part in example.name.split("."))]
    assert len(public) >= LEAST, public


def test_a_wrong_example_fails():
    tree = ast.parse('@cache\ndef f():\n    """Return 1.\n\n    >>> 1 + 1\n    3\n    """')
    (example,) = _examples(tree, "module", "module.py")
    assert example.name == "module.f"
    assert doctest.DocTestRunner().run(example, out=lambda _: None).failed == 1
