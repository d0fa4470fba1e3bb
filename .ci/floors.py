"""Holds the dependencies of pyproject.toml, and what is installed, to the floors of .ci/floors.txt."""

import importlib.metadata
import pathlib
import sys

import tomllib
from packaging.requirements import Requirement
from packaging.version import Version

from kernels.core.build_native import COMPILER

here = pathlib.Path(__file__).parent
rows = [line.split("#")[0].split() for line in (here / "floors.txt").read_text().splitlines()]
floors = {row[0]: Version(row[1]) for row in rows if row}
project = tomllib.loads((here.parent / "pyproject.toml").read_text())
build = [Requirement(text) for text in (*project["build-system"]["requires"], COMPILER)]
required = [Requirement(text) for text in project["project"]["dependencies"]] + build

failures = []
for requirement in required:
    bounds = [Version(part.version) for part in requirement.specifier if part.operator in (">=", "==")]
    least = max(bounds, default=None)
    floor = floors.get(requirement.name)
    print(f"{requirement.name:<14} floor {least!s:<10} without known holes from {floor or 'any on'}")
    if least is None:
        failures.append(f"{requirement.name} has no floor in pyproject.toml")
    elif floor is not None and least < floor:
        failures.append(f"pyproject.toml allows {requirement.name} {least}; the floor is {floor}")
for name, floor in floors.items():
    if name in {requirement.name for requirement in build}:
        continue  # pip builds in an environment of its own; the one here may hold what Python brings
    try:
        installed = Version(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        continue
    print(f"{name:<14} installed {installed}")
    if installed < floor:
        failures.append(f"{name} {installed} is installed; the floor is {floor}")
sys.exit("\n".join(failures) or 0)
