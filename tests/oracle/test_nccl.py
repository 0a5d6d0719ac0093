"""NCCL: which of its rules apply follows from the version that ran the draw."""

from __future__ import annotations

import pytest

from harness.oracle.case import Case
from harness.oracle.nccl import SIMULATED, rules_of
from harness.scenario.scenario import Scenario
from harness.trace.draw import Draw, Version
from tests.tools.scenes import PAIR


@pytest.mark.parametrize(
    ("version", "is_legal"),
    [((2, 27, 3), False), ((2, 30, 6), False), ((2, 30, 7), True), ((2, 31, 0), True), ((3, 0, 0), True)],
)
def test_windows_of_different_sizes_are_legal_from_2_30_7_on(version: Version, is_legal: bool) -> None:
    assert rules_of(version).has_uneven_windows is is_legal


def test_a_draw_without_nccl_follows_the_version_that_the_simulation_follows() -> None:
    assert rules_of(None).version == SIMULATED


@pytest.mark.parametrize("version", [(2, 28, 9), (2, 32, 3)])
def test_a_case_has_the_rules_of_the_nccl_that_ran_its_draw(version: Version) -> None:
    assert Case(Draw(Scenario(PAIR, ()), (), (), 1.0, 1.0, nccl=version)).nccl.version == version
