"""One world, on a scenario and on a variant of it: the verdict has to be the same.

Invariant: a verdict is the broken rules, with the steps and ranks as drawn. Data follows from step and rank and differs
between the two, so no byte is compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from hypothesis import strategies as st

from harness.oracle.case import Case, ranks_text
from harness.oracle.findings import Raised
from harness.oracle.judge import every
from harness.scenario.scenario import Scenario
from harness.scenario.system import POOLS, System
from harness.strategies.actions import Via
from harness.strategies.common import common
from harness.strategies.programs import scenarios
from harness.studies.agree.facts import ANYWHERE, NOTHING, SOMEWHERE, Difference, Facts, Where, between
from harness.studies.agree.reasons import Disparity
from harness.studies.agree.transformations.catalogue import TRANSFORMATIONS, Transformation
from harness.studies.agree.transformations.variant import Variant
from harness.studies.agree.verdict_reasons import VERDICT_REASONS
from harness.studies.faults.catalogue import select
from harness.studies.faults.proof import sound
from harness.trace.draw import Draw
from harness.world.world import World

FAULTS = (
    *("F01", "F02", "F03", "F10", "F11", "F12", "F13", "F14", "F15", "F16", "F17", "F18", "F19", "F21", "F22", "F24"),
    *("F25", "F26", "F29", "K01"),
)
"""The planted faults that are drawn. Their verdict repeats, and it rests on nothing that a transformation changes.

F07 and K06 go by the number of a rank, F23 by the order of calls, and K02 by the count. K05 and K19 to K22 go by the
values. The others end in a hang, or are races.
"""


class Variants:
    """A scenario and a variant of it on `world`. The facts are the transformations, of which each draw is given one:
    of those that apply, the one that was compared least often."""

    facts: Collection[str] = tuple(TRANSFORMATIONS)
    reasons = VERDICT_REASONS

    def __init__(self, world: World, transformations: Mapping[str, Transformation] = TRANSFORMATIONS) -> None:
        self._run: Callable[[Scenario], Draw] = world.run
        self._transformations = transformations
        self._compared: Counter[str] = Counter()

    def disparities(self, scenario: Scenario, facts: Collection[str]) -> Iterator[Disparity]:
        """Run it in both ways. In what the verdicts differ; nothing where no transformation applies.

        Where they differ both are run once more, which shows whether they differ in the same again.
        """
        for name in sorted(facts, key=lambda each: self._compared[each]):
            if (variant := self._transformations[name](scenario)) is not None:
                self._compared[name] += 1
                yield self._compare(name, scenario, variant)
                return

    def _compare(self, name: str, scenario: Scenario, variant: Variant) -> Disparity:
        first, second = self._run(scenario), self._run(variant.scenario)
        found = differences(first, second, variant)
        again = differences(self._run(scenario), self._run(variant.scenario), variant) if found else ()
        repeats = not found or any(_is_same(one, other) for one in found for other in again)
        return Disparity(name, found, first, second, repeats)


def _is_same(one: Difference, other: Difference) -> bool:
    """Whether two runs differ alike: on the same ranks, or in a rule that one of the two never breaks."""
    is_one_sided = one.first == other.first == NOTHING or one.second == other.second == NOTHING
    return one.where == other.where and (one == other or is_one_sided)


def differences(first: Draw, second: Draw, variant: Variant) -> tuple[Difference, ...]:
    """In what the verdicts of a draw and of one of its variant differ.

    Where one ended early steps are left out, since the place of a rank is then a matter of time.
    """
    with_steps = first.is_clean and second.is_clean
    return between(_verdict(first, with_steps), _verdict(second, with_steps, variant)) or ()


def _verdict(draw: Draw, with_steps: bool, variant: Variant | None = None) -> Facts:
    """The broken rules, with the ranks that show them; of an exception without, as one that raises stops the others."""
    ranks: dict[Where, set[int]] = {}
    for each in every(Case(draw)):
        step = each.step if variant is None else variant.step(each.step)
        seen = each.ranks if variant is None else variant.ranks_drawn(each.ranks)
        where = Where(step if with_steps else ANYWHERE, ANYWHERE, each.key)
        ranks.setdefault(where, set()).update(() if isinstance(each, Raised) else seen)
    return {where: ranks_text(tuple(sorted(those))) if those else SOMEWHERE for where, those in ranks.items()}


def subjects(world: int, pools: Sequence[str] | None, via: Via, by_address: bool) -> st.SearchStrategy[Scenario]:
    """What is compared: right systems, the six designs, and planted faults, in equal shares. Of `pools`, if given,
    these alone, on any nodes too. `world` and `by_address`: as `sound` has them."""
    if pools:
        return common(world, pools=pools, via=via) | st.sampled_from(pools).flatmap(
            lambda pool: scenarios(world, system=System(pool), via=via)
        )
    planted = st.one_of(*(fault.draws(world) for fault in select(FAULTS)))
    return st.one_of(sound(world, by_address), common(world, pools=POOLS, via=via), planted)
