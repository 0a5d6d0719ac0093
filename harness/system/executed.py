"""Modules that were executed for the draw under way alone.

Invariant: after `forget` they hold nothing, whoever still holds a function of theirs.
"""

from __future__ import annotations

from types import ModuleType

_executed: list[ModuleType] = []


def remember(module: ModuleType) -> None:
    """A module whose state is to go with the draw."""
    _executed.append(module)


def forget() -> None:
    """Clear them all. Called by the harness after each draw, when windows are gone."""
    while _executed:
        vars(_executed.pop()).clear()
