"""Every transformation by its name, as reports and seed files have it."""

from __future__ import annotations

from collections.abc import Callable

from harness.scenario.scenario import Scenario
from harness.studies.agree.transformations.calls import compose_all_reduces, split_calls
from harness.studies.agree.transformations.ordering import swap_steps
from harness.studies.agree.transformations.renaming import rename_families
from harness.studies.agree.transformations.renumbering import renumber_ranks
from harness.studies.agree.transformations.variant import Variant

Transformation = Callable[[Scenario], Variant | None]
"""A scenario to its variant; None where it has none."""

TRANSFORMATIONS: dict[str, Transformation] = {
    each.__name__.replace("_", "-"): each
    for each in (renumber_ranks, rename_families, swap_steps, split_calls, compose_all_reduces)
}
