"""Compare two results: did xpnet become slower, or use more memory, relative to PyTorch?"""

from __future__ import annotations

from dataclasses import dataclass

from bench.report import Results

PEER = "torch"


@dataclass(frozen=True)
class Change:
    """A ratio to PyTorch before and after.

    Attributes:
        disturbed: True if one of its figures is from samples that other programs disturbed, which makes it unreliable.
    """

    what: str
    old: float
    new: float
    disturbed: bool

    @property
    def growth(self) -> float:
        """The relative growth: 0.1 is 10 %."""
        return self.new / self.old - 1


def changes(old: Results, new: Results) -> list[Change]:
    """Return all ratios to PyTorch that both results have."""
    before, after = _ratios(old), _ratios(new)
    return [
        Change(what, ratio, after[what][0], disturbed or after[what][1])
        for what, (ratio, disturbed) in before.items()
        if what in after
    ]


def _ratios(results: Results) -> dict[str, tuple[float, bool]]:
    found = {}
    for kind, mark in (("steps", ""), ("memory", " memory")):
        for row in results[kind]:
            if PEER in row["ratios"]:
                disturbed = kind == "steps" and any(row["sides"][side]["disturbed"] for side in ("xpnet", PEER))
                what = f"{row['workload']}{mark}, {row['threads']} thread{'s' * (row['threads'] > 1)}"
                found[what] = row["ratios"][PEER], disturbed
    return found
