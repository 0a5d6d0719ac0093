"""Two values of one piece of a process as text: what differs, and nothing else.

Invariant: a text has at most `LONGEST` characters, whatever a plug-in has put there.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import takewhile
from types import FunctionType
from typing import Any

from harness.rank.state.pieces import Held, Value, Variables

LONGEST = 120


def difference(what: str, old: Value, new: Value) -> tuple[str, str]:
    """The old and the new value of the piece `what`: of a mapping the keys, of a collection the items that differ."""
    if isinstance(old, Variables) and isinstance(new, Variables):
        return _by_key(what, old.as_mapping(), new.as_mapping())
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return _by_key(what, old, new)
    if isinstance(old, tuple | frozenset) and isinstance(new, tuple | frozenset):
        return _by_item(what, old, new)
    one, other = _told_apart(what, old, new)
    return _clipped_apart(one, other)


def _by_key(what: str, old: Mapping[str, Value], new: Mapping[str, Value]) -> tuple[str, str]:
    keys = [key for key in {**old, **new} if key not in old or key not in new or old[key] != new[key]]
    pairs = [_of_key(what, key, old, new) for key in keys]
    return _clipped_apart(*(", ".join(texts) for texts in zip(*pairs, strict=True)))


def _of_key(what: str, key: str, old: Mapping[str, Value], new: Mapping[str, Value]) -> tuple[str, str]:
    if key in old and key in new:
        one, other = _told_apart(what, old[key], new[key])
        return f"{key}={one}", f"{key}={other}"
    one, other = (f"{key}={_shown(what, each[key])}" if key in each else f"no {key}" for each in (old, new))
    return one, other


def _told_apart(what: str, old: Value, new: Value) -> tuple[str, str]:
    """Two values that differ, as texts that differ."""
    one, other = _shown(what, old), _shown(what, new)
    if one != other:
        return one, other
    places = _place(old), _place(new)
    if places[0] != places[1]:
        return f"{one}{places[0]}", f"{other}{places[1]}"
    return one, f"another of the name {other}"


def _place(value: Value) -> str:
    """Where a function is defined, or nothing."""
    if isinstance(value, FunctionType):
        return f" ({value.__code__.co_filename}:{value.__code__.co_firstlineno})"
    return ""


def _by_item(
    what: str, old: tuple[Value, ...] | frozenset[Value], new: tuple[Value, ...] | frozenset[Value]
) -> tuple[str, str]:
    gone, come = ([each for each in one if each not in other] for one, other in ((old, new), (new, old)))
    if not gone and not come:
        return "in one order or number", "in another"
    one, other = (", ".join(_shown(what, each) for each in items) or "none" for items in (gone, come))
    return _clipped_apart(one, other if one != other else f"others of the name {other}")


def _shown(what: str, value: Value) -> str:
    if what in _SHOWN and isinstance(value, str | int):
        return _SHOWN[what](value)
    if isinstance(value, tuple):
        return f"({', '.join(_shown('', each) for each in value)})"
    if isinstance(value, Held):  # its `__str__` and its attributes are a plug-in's
        return f"{type(value.value).__module__}.{type(value.value).__qualname__}"
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


def _clipped_apart(one: str, other: str) -> tuple[str, str]:
    """Both texts clipped, so that they show where they differ."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    if clipped(one) != clipped(other) or one == other:
        return clipped(one), clipped(other)
    head = LONGEST // 3
    return clipped(f"{one[:head]} … {one[same - head :]}"), clipped(f"{other[:head]} … {other[same - head :]}")


def clipped(text: str) -> str:
    """At most `LONGEST` characters of a text, all of which can be encoded: a name of a file may hold any byte."""
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 2]} …"


_SHOWN: dict[str, Callable[[Any], str]] = {
    "blocked signals": lambda number: signal.Signals(number).name,
    "descriptors": _descriptor,
    "signal handlers": lambda number: signal.Handlers(number).name,
    "threads": _thread,
}
"""Pieces whose numbers have names."""
