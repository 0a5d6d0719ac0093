"""The vocabulary of a strategy: what the scenarios that it draws are made of, as far as it has drawn.

Invariant: a mutation uses no word that the strategy has not. So what a strategy leaves out, such as hazards, kernels or
new communicators, stays out, and a right system stays right.
"""

from __future__ import annotations

from harness.scenario.bases import CollectiveStep
from harness.scenario.hazards import hazards
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate
from harness.strategies.actions import COLLECTIVES, COMMON, Via

_ACTIONS = {
    "trim": ("trim",),
    "recreate": ("recreate",),
    "straggle": ("straggle",),
    "steady": ("steady",),
    "in_flight": ("fly", "land", "turnover"),
    "stall": ("stall",),
    "capture": ("graph",) * 4,
    "replay": ("replay",) * 4,
    "ballast": ("ballast",),
    "deny": ("deny",) * 2,
    "refuse": ("refuse",) * 2,
    "release": ("allocate", "release", "release"),
}
"""By kind of step, the actions that make it, each as often as it is taken."""


class Vocabulary:
    """What was drawn so far."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        """Kinds of steps."""
        self.hazards: frozenset[str] = frozenset()
        self.streams = 1
        self.is_spmd = True
        """Whether every rank takes part in every allocation."""
        self.differs = False
        """Whether a buffer may be larger on some ranks than on others."""
        self._by_kernel, self._by_library = False, False

    def take(self, scenario: Scenario) -> None:
        """Learn from a scenario that the strategy drew."""
        self.hazards |= hazards(scenario.steps, scenario.topology)
        for step in scenario.steps:
            self.kinds.add(step.kind)
            self.streams = max(self.streams, step.stream + 1)
            if isinstance(step, Allocate):
                self.is_spmd = self.is_spmd and step.groups is None
                self.differs |= not isinstance(step.elements, int)
            elif isinstance(step, CollectiveStep) and step.has_kernels:
                self._by_kernel |= step.via == "kernel"
                self._by_library |= step.via != "kernel"

    @property
    def via(self) -> Via:
        """The ways that its collectives go."""
        if self._by_kernel:
            return "mixed" if self._by_library else "kernel"
        return "library"

    @property
    def actions(self) -> tuple[str, ...]:
        """The kinds of actions that it is made of; one that stands there more often is taken more often."""
        collectives = tuple(kind for kind in COLLECTIVES if kind in self.kinds)
        usual = tuple(kind for kind in COMMON if kind in self.kinds) * 2
        others = (action for kind, actions in _ACTIONS.items() if kind in self.kinds for action in actions)
        return (*collectives, *usual, *others)
