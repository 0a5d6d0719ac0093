"""All states of the oracle that a draw or a recording reached.

Invariant: a state is a kind and a short name, both stable: corpora, reports and other nights count by them. They follow
from a case alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness.oracle.case import Case
from harness.oracle.states import calls, interleavings, nearly_kept, nearly_owned
from harness.oracle.states.state import KINDS, State

_SEEN: dict[str, tuple[Callable[[Case], Iterator[str]], ...]] = {
    "nearly": (nearly_owned.seen, nearly_kept.seen),
    "path": (calls.paths,),
    "group": (calls.groups,),
    "size": (calls.sizes,),
    "interleaving": (interleavings.seen,),
}


def reached(case: Case) -> tuple[State, ...]:
    """Every state once, kinds in the order of `KINDS` and names in that of the alphabet."""
    return tuple(State(kind, name) for kind in KINDS for name in sorted({*_named(case, kind)}))


def _named(case: Case, kind: str) -> Iterator[str]:
    for seen in _SEEN[kind]:
        yield from seen(case)
