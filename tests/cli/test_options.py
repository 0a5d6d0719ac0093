"""Options that several commands share: each help names what there is to choose from."""

from __future__ import annotations

from typing import get_args

import pytest

from harness.cli import options
from harness.machine.evidence import NAMES
from harness.scenario.system import POOLS


def test_the_help_of_the_pool_names_every_design() -> None:
    (option,) = get_args(options.PoolOption)[1:]
    assert [name for name in POOLS if name not in option.help] == []


def test_the_help_of_evidence_names_every_kind() -> None:
    (option,) = get_args(options.EvidenceOption)[1:]
    assert option.metavar == "|".join(NAMES)


@pytest.mark.parametrize(("name", "least"), [("ShrinkOption", 0), ("DeadlineOption", 1)])
def test_seconds_have_a_least_value(name: str, least: int) -> None:
    (option,) = get_args(getattr(options, name))[1:]
    assert option.min == least
