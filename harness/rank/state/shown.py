"""Two values of one piece of a process as text: what differs, and nothing else.

Invariant: a text has at most `LONGEST` characters, whatever a plug-in has put there.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from harness.rank.state.pieces import Value, Variables

LONGEST = 120


def difference(what: str, old: Value, new: Value) -> tuple[str, str]:
    """The old and the new value of the piece `what`: of a mapping the keys, of a collection the items that differ."""
    if isinstance(old, Variables) and isinstance(new, Variables):
        return _by_key(what, old.as_mapping(), new.as_mapping())
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return _by_key(what, old, new)
    if isinstance(old, tuple | frozenset) and isinstance(new, tuple | frozenset):
        return _by_item(what, old, new)
    return clipped(_shown(what, old)), clipped(_shown(what, new))


def _by_key(what: str, old: Mapping[str, Value], new: Mapping[str, Value]) -> tuple[str, str]:
    keys = [key for key in {**old, **new} if key not in old or key not in new or old[key] != new[key]]

    def listed(values: Mapping[str, Value]) -> str:
        return ", ".join(f"{key}={_shown(what, values[key])}" if key in values else f"no {key}" for key in keys)

    return clipped(listed(old)), clipped(listed(new))


def _by_item(
    what: str, old: tuple[Value, ...] | frozenset[Value], new: tuple[Value, ...] | frozenset[Value]
) -> tuple[str, str]:
    gone, come = ([each for each in one if each not in other] for one, other in ((old, new), (new, old)))
    if not gone and not come:
        return "in one order or number", "in another"
    one, other = (clipped(", ".join(_shown(what, each) for each in items)) or "none" for items in (gone, come))
    return one, other


def _shown(what: str, value: Value) -> str:
    if what in _SHOWN and isinstance(value, str | int):
        return _SHOWN[what](value)
    if isinstance(value, tuple):
        return f"({', '.join(_shown('', each) for each in value)})"
    if callable(value):
        name = getattr(value, "__qualname__", type(value).__name__)
        return f"{getattr(value, '__module__', '') or ''}.{name}".removeprefix(".").removeprefix("builtins.")
    return str(value)


def _thread(ident: Any) -> str:
    return next((str(thread.name) for thread in threading.enumerate() if thread.ident == ident), f"thread {ident}")


def _descriptor(number: Any) -> str:
    """A descriptor with what it is open on, if it still is."""
    with suppress(OSError):
        return f"{number} ({os.readlink(f'/proc/self/fd/{number}')})"
    return str(number)


def clipped(text: str) -> str:
    """At most `LONGEST` characters of a text."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 2]} …"


_SHOWN: dict[str, Callable[[Any], str]] = {
    "blocked signals": lambda number: signal.Signals(number).name,
    "descriptors": _descriptor,
    "signal handlers": lambda number: signal.Handlers(number).name,
    "threads": _thread,
}
"""Pieces whose numbers have names."""
