"""Limit BLAS to one thread, and restore its own number."""

from __future__ import annotations

import sys
import threading
from functools import lru_cache
from typing import Any

_lock = threading.RLock()  # reentrant: a finalizer may take it while it is held
_holds: set[int] = set()
_before: list[tuple[Any, int]] | None = None


class single_threaded_blas:  # noqa: N801  (reads as a statement: `with single_threaded_blas():`)
    """Limit BLAS to one thread. The setting is that of the process, so the last context to exit restores it.

    A nested context costs almost nothing: put one around a loop of many small products.

    An interrupt can come between any two steps, also before and after the block. Therefore the old setting is stored
    before it is changed and dropped after it is restored, exiting twice has the effect of once, and an object that was
    not exited does so when it is collected.
    """

    _is_held = False

    def __enter__(self) -> None:
        with _lock:
            try:
                self._is_held = True
                _holds.add(id(self))
                if len(_holds) == 1:
                    _hold_blas()
            except BaseException:
                self._leave()
                raise

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._leave()
        except BaseException:
            self._leave()
            raise

    def __del__(self) -> None:
        if self._is_held and not sys.is_finalizing():
            self._leave()

    def _leave(self) -> None:
        with _lock:
            _holds.discard(id(self))
            if not _holds:
                _let_blas_go()
            self._is_held = False


def _hold_blas() -> None:
    global _before
    if _before is None:  # else an interrupt came while it was restored
        libraries = [library for library in _blas().lib_controllers if library.user_api == "blas"]
        _before = [(library, library.num_threads) for library in libraries]
    _let_any_thread_set_blas()
    for library, _ in _before:
        library.set_num_threads(1)


def _let_blas_go() -> None:
    global _before
    if _before is not None:
        _let_any_thread_set_blas()
        for library, count in _before:
            library.set_num_threads(count)
        _let_any_thread_set_blas()
        _before = None


def _let_any_thread_set_blas() -> None:
    """Let any thread set OpenBLAS: threadpoolctl 3.8 reserves that for the first one, but another may exit last."""
    import threadpoolctl

    let_go = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
    if let_go is not None:
        let_go(force=True)


@lru_cache(maxsize=1)
def _blas() -> Any:
    import numpy  # noqa: F401  (its BLAS must be loaded to be found)
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()
