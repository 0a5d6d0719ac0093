"""What the draws of a run covered: each state with the draws that reached it, and those that none did.

Invariant: a draw counts once for each state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from harness.oracle.states.state import KINDS, State
from harness.oracle.states.universe import universe


class Coverage:
    """Counts states. `known` are those that earlier runs reached, `reachable` those that draws of this run can reach:
    all where it is None."""

    def __init__(self, known: Iterable[State] = (), reachable: Sequence[State] | None = None) -> None:
        self.counts: Counter[State] = Counter()
        self.known = {*known}
        self._reachable = universe() if reachable is None else reachable

    def take(self, states: Iterable[State]) -> list[State]:
        """Count the states of one draw. Returns those that no draw had reached, in this run or an earlier one."""
        reached = [*dict.fromkeys(states)]
        new = [state for state in reached if state not in self.counts and state not in self.known]
        self.counts.update(reached)
        return new

    @property
    def new(self) -> int:
        """States that no earlier run had reached."""
        return len(self.counts.keys() - self.known)

    def covered(self, kind: str) -> dict[str, int]:
        """The states of a kind by name, each with the draws that reached it; the most frequent first."""
        return {state.name: count for state, count in self.counts.most_common() if state.kind == kind}

    def never(self, kind: str) -> list[str]:
        """The states of a kind that can be reached, and that no draw did."""
        return [state.name for state in self._reachable if state.kind == kind and state not in self.counts]

    def as_data(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "states": len(self.counts),
            "new_states": self.new,
            "covered": {kind: self.covered(kind) for kind in KINDS},
            "never": {kind: self.never(kind) for kind in KINDS},
        }
