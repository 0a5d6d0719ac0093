"""The guide of a campaign: it counts what draws reach, and sends some draws where few have been.

Invariant: the same seed, and the same states, give the same draws. A guide changes what is drawn beside the strategy,
and never what the strategy draws. Scenarios that broke a rule are no parents: their mutations would break it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from harness.clock import CLOCK, Clock
from harness.nights.corpus import Corpus
from harness.nights.coverage import Coverage
from harness.nights.mutations import Mutations
from harness.nights.vocabulary import Vocabulary
from harness.oracle.case import Case
from harness.oracle.judge import Verdict
from harness.oracle.states.reached import reached
from harness.oracle.states.state import State
from harness.scenario.scenario import Scenario
from harness.trace.draw import Draw

CORPUS_SHARE = 0.2
"""Share of a budget that goes into the corpus, before anything is drawn."""
MUTATIONS = 6
"""Mutations between two batches of the strategy."""
HOLDERS = 6
"""Scenarios that are remembered of each state."""
OFTEN = 0.25
"""A state that so large a share of draws reaches is not looked for."""
NEARLY = 0.7
"""How often the state is a rule nearly broken."""
ALL = slice(None)
Observer = Callable[[Draw, Sequence[State], Verdict, float, str], None]
"""Takes a draw with its states, verdict and seconds, and where it came from."""


class Guide:
    """Counts states in `coverage`, keeps new ones in `corpus`, and gives mutations of what reached rare ones.

    `draws` and `minutes` are the budget, of which the corpus gets a share. `mutations`: how many come between two
    batches. `is_free` is that of `Mutations`. `observe` is called for every draw. `tries` are those of the corpus to
    run. `reachable` is that of `Coverage`.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        corpus: Corpus | None = None,
        draws: int | None = None,
        minutes: float | None = None,
        mutations: int = MUTATIONS,
        is_free: bool = True,
        observe: Observer | None = None,
        tries: slice = ALL,
        reachable: Sequence[State] | None = None,
        clock: Clock = CLOCK,
    ) -> None:
        self.corpus, self.coverage = corpus, Coverage(corpus.states if corpus else (), reachable)
        self._draws, self._minutes, self._observe, self._clock = draws, minutes, observe, clock
        self._each, self._tries = mutations, tries
        self._chance = Random(f"guide {seed}")
        self._vocabulary = Vocabulary()
        self._mutations = Mutations(seed, self._vocabulary, is_free)
        self._holders: dict[State, list[Scenario]] = {}
        self._by_topology: dict[object, list[Scenario]] = {}
        self._seen = 0
        self._corpus_left, self._is_corpus_tried = self._of_corpus(), False
        self._how = ""

    def scenarios(self) -> Iterator[Scenario]:
        """What to run before the next batch of the strategy: at first the corpus, then mutations. What a finding left
        of the corpus comes before the batch after that."""
        self._how = "mutation" if self._is_corpus_tried else "corpus"
        try:
            # `yield from` would close the corpus with this
            for scenario in self._guided() if self._is_corpus_tried else self._corpus_left:  # noqa: UP028
                yield scenario
            self._is_corpus_tried = True
        finally:
            self._how = ""

    def saw(self, draw: Draw, case: Case, verdict: Verdict, seconds: float) -> None:
        """Learn from a draw that was judged. Raises `UsageError` where the corpus cannot be written."""
        states = reached(case)
        if self._observe is not None:
            self._observe(draw, states, verdict, seconds, self._how or "strategy")
        new = self.coverage.take(states)
        self._seen += 1
        if not self._how:
            self._vocabulary.take(draw.scenario)
        if verdict.findings or not draw.is_clean:
            return
        for state in states:
            self._hold(self._holders.setdefault(state, []), draw.scenario)
        self._hold(self._by_topology.setdefault(draw.scenario.topology.key, []), draw.scenario)
        if new and self.corpus is not None:
            self.corpus.add(draw.scenario, states)

    def finish(self) -> None:
        """Prune the corpus. May be called twice."""
        if self.corpus is not None:
            self.corpus.prune()

    def as_data(self) -> dict[str, Any]:
        """Plain data: what was covered and what never, and what became of the corpus (None without one)."""
        return {**self.coverage.as_data(), "corpus": None if self.corpus is None else self.corpus.as_data()}

    def _hold(self, holders: list[Scenario], scenario: Scenario) -> None:
        if len(holders) < HOLDERS:
            holders.append(scenario)
        elif self._chance.random() < 0.5:
            holders[self._chance.randrange(HOLDERS)] = scenario

    def _of_corpus(self) -> Iterator[Scenario]:
        if self.corpus is None:
            return
        tried = self.corpus.scenarios[self._tries]
        most = len(tried) if self._draws is None else int(CORPUS_SHARE * self._draws)
        end = None if self._minutes is None else self._clock.now() + CORPUS_SHARE * 60 * self._minutes
        for scenario in tried[:most]:
            if end is not None and self._clock.now() >= end:
                return
            yield scenario

    def _guided(self) -> Iterator[Scenario]:
        for _ in range(self._each):
            if (parent := self._parent()) is None:
                return
            other = self._chance.choice(self._by_topology[parent.topology.key])
            mutation = self._mutations.of(parent, other)
            if mutation is not None:
                yield mutation

    def _parent(self) -> Scenario | None:
        """A scenario that reached a state which few draws reach, mostly a rule that was nearly broken."""
        states = [state for state in self._holders if self.coverage.counts[state] <= OFTEN * self._seen]
        nearly = [state for state in states if state.kind == "nearly"]
        if nearly and self._chance.random() < NEARLY:
            states = nearly
        if not states or not self._vocabulary.actions:
            return None
        weights = [1 / self.coverage.counts[state] for state in states]
        return self._chance.choice(self._holders[self._chance.choices(states, weights)[0]])
