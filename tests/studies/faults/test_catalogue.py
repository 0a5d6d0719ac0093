"""The catalogue: what each fault must break, and how faults are chosen."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.oracle.findings import RULES
from harness.strategies.batches import sample
from harness.studies.faults.catalogue import FAULTS, Fault, select


def test_rules_of_the_catalogue_exist() -> None:
    assert {rule for fault in FAULTS for rule in fault.rules} <= RULES.keys()


def test_an_unknown_fault_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="fault 'F99' is neither a name nor one of F01, "):
        select(["F01", "F99"])


def test_every_fault_has_an_id_and_a_name_of_its_own() -> None:
    assert len({fault.id for fault in FAULTS}) == len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_without_ids_every_fault_is_chosen() -> None:
    assert select(()) == list(FAULTS)


def test_faults_are_chosen_once_in_the_order_of_their_ids() -> None:
    assert [fault.id for fault in select(["F03", "F01", "F03"])] == ["F03", "F01"]


def test_several_faults_may_be_named_at_once() -> None:
    assert [fault.id for fault in select(["F02,F13", "K01,F02"])] == ["F02", "F13", "K01"]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_a_fault_is_a_change_to_what_is_tested(fault: Fault) -> None:
    """Its system is planted or a design that ships, or its calls claim what they may not."""
    (drawn,) = sample(fault.draws(4), 1)
    systems = drawn.system.pool, drawn.system.collectives
    is_planted = any(name.startswith("harness.system.planted.") for name in systems)
    claims = any(getattr(step, "claim", False) for step in drawn.steps)
    assert is_planted or drawn.system.pool != "deferred" or drawn.system.sites == "implicit" or claims
