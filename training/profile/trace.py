"""Recorded ranges as a trace for Perfetto (https://ui.perfetto.dev) and chrome://tracing.

The format is the "Trace Event Format" in its JSON Object form: a complete event ("X") for each range, times in
microseconds, and a metadata event ("M") with the name of each thread.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backend.recording import Event
from training.files.durable import write_output


def trace(events: Sequence[Event]) -> dict[str, Any]:
    """Return the trace, ready for JSON; the first range begins at 0, threads are numbered as they come."""
    process = os.getpid()
    zero = min((event.begin for event in events), default=0)
    threads = {name: number for number, name in enumerate(dict.fromkeys(event.thread for event in events))}
    names = [
        {"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": {"name": "xpnet"}},
        *(
            {"ph": "M", "name": "thread_name", "pid": process, "tid": number, "args": {"name": name}}
            for name, number in threads.items()
        ),
    ]
    ranges = [
        {
            "ph": "X",
            "name": event.name,
            "cat": event.category or event.kind,
            "pid": process,
            "tid": threads[event.thread],
            "ts": (event.begin - zero) / 1e3,
            "dur": event.duration / 1e3,
            "args": _arguments(event),
        }
        for event in events
    ]
    return {"traceEvents": names + ranges, "displayTimeUnit": "ms"}


def write_trace(events: Sequence[Event], file: Path) -> None:
    """Write the trace.

    Raises:
        OSError: it cannot be written; an existing file is left as it was.
    """
    write_output(file, json.dumps(trace(events)).encode())


def _arguments(event: Event) -> dict[str, Any]:
    """Return the details that are shown of a selected range."""
    arguments: dict[str, Any] = {"kind": event.kind}
    if event.shapes:
        arguments["shape"] = " ".join("x".join(map(str, shape)) or "scalar" for shape in event.shapes)
    if event.bytes:
        arguments["bytes"] = event.bytes
    return arguments
