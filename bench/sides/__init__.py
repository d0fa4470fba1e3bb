"""The sides of the comparison: xpnet and its peers, each doing the same work behind the same few methods."""

from __future__ import annotations

import importlib
import importlib.util

from bench.sides.base import Case, Side

PEERS = ("torch", "dezero", "thinc", "textbook")

__all__ = ["PEERS", "Case", "Side", "installed", "load"]


def installed(peer: str) -> bool:
    """Return whether a peer can be imported; the textbook layers are part of the bench."""
    return peer == "textbook" or importlib.util.find_spec(peer) is not None


def load(name: str) -> Side:
    """Return the side called "xpnet" or by one of ``PEERS``.

    Raises:
        ImportError: it is not installed, or incomplete.
    """
    return importlib.import_module(f"bench.sides.{name}").SIDE
