"""What a state of the oracle is.

Invariant: two states are equal where kind and name are.
"""

from __future__ import annotations

from typing import NamedTuple

KINDS = ("nearly", "path", "group", "size", "interleaving")
"""`nearly`: a rule was one step from being broken. `path`: operation, way and path of a call. `group`: the shape of the
groups that ran calls. `size`: what their ranks contributed. `interleaving`: two things that came one after the other on
one buffer, communicator, piece of memory or rank."""


class State(NamedTuple):
    """One state, by its kind and its name among the states of that kind."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"
