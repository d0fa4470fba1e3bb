"""Signals that end a program: raised at once or when asked for, and Python's own handlers again after it."""

import os
import signal
import sys
import threading
from contextlib import nullcontext

import pytest

from training.loop import stopping
from training.loop.stopping import Interrupted, check, deferred, signals_interrupt


def handlers():
    return [signal.getsignal(number) for number in stopping.SIGNALS]


@pytest.fixture(autouse=True)
def _a_handler_of_ctrl_c():
    """Set Python's handler of Ctrl-C, which a shell disables for background processes."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "code", "name"), [(2, 130, ""), (15, 143, "SIGTERM"), (1, 129, "SIGHUP")])
def test_a_signal_interrupts_and_handlers_come_back(number, code, name):
    before = handlers()
    with pytest.raises(KeyboardInterrupt) as raised, signals_interrupt():
        signal.raise_signal(number)
    assert (raised.value.exit_code, raised.value.name) == (code, name)
    assert handlers() == before


def test_a_deferred_signal_waits_until_it_is_asked_for():
    seen = []
    with signals_interrupt(), pytest.raises(Interrupted), deferred():  # noqa: PT012  (it comes from where this ends)
        signal.raise_signal(signal.SIGTERM)
        seen.append("still here")
        with pytest.raises(Interrupted):
            check()
        check()  # it is told once
        seen.append("goes on")
        stopping._handlers.is_pending = True  # as if one came after the last question
    assert seen == ["still here", "goes on"]


@pytest.mark.parametrize("within", [deferred, nullcontext])
def test_a_second_signal_ends_the_process(monkeypatch, within):
    monkeypatch.setattr(os, "_exit", sys.exit)  # which can be caught
    with signals_interrupt():
        with pytest.raises(Interrupted), within():
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(SystemExit) as end:
            signal.raise_signal(signal.SIGTERM)
    assert end.value.code == 143


@pytest.mark.parametrize("until", [deferred, stopping.whole_steps])
def test_a_signal_at_the_very_end_is_not_lost(monkeypatch, until):
    """It comes after the last look for one, or as the handler is replaced."""
    first, look, replace = [signal.SIGINT], stopping.check, signal.signal

    def and_a_signal(function):
        def called(*arguments):
            result = function(*arguments)
            if first:
                signal.raise_signal(first.pop())
            return result

        return called

    before = handlers()
    outer = signals_interrupt() if until is deferred else nullcontext()
    with outer, pytest.raises(Interrupted), until():  # noqa: PT012
        if until is deferred:
            monkeypatch.setattr(stopping, "check", and_a_signal(look))
        else:
            monkeypatch.setattr(signal, "signal", lambda *given: (signal.raise_signal(first.pop()), replace(*given)))
    monkeypatch.undo()
    assert (first, handlers(), stopping._handlers) == ([], before, None)


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_interrupt():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_sets_no_handler():
    found = []

    def work():
        with signals_interrupt(), deferred():
            found.append(handlers())
            check()

    before = handlers()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=20)
    assert found == [before]


def test_an_exception_is_not_covered_by_a_signal():
    with signals_interrupt(), pytest.raises(ZeroDivisionError), deferred():  # noqa: PT012
        signal.raise_signal(signal.SIGTERM)
        raise ZeroDivisionError


def test_without_the_command_line_nothing_is_installed():
    before = handlers()
    with deferred():
        check()
        assert handlers() == before
