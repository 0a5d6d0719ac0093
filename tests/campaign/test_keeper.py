"""Keeping failing scenarios: the smallest of a rule stays, and its story says how it was found."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec
import pytest

from harness.campaign import seeds
from harness.campaign.keeper import Keeper, Shrunk
from harness.campaign.symptoms import Symptom
from harness.errors import PluginError, UsageError
from harness.oracle.findings import Finding, Hang, Leak, Raised
from harness.scenario.scenario import Scenario
from tests.tools.campaigns import TWO, layers

LEAK, HANG = Leak("shown", step=0, ranks=(0,)), Hang("shown", step=0, ranks=(0,))


def sized(count: int) -> Scenario:
    return Scenario(TWO, layers(count))


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(tmp_path, {"torch": "2.13.0"})


def test_what_is_kept_is_on_disk_with_its_findings_and_environment(keeper: Keeper) -> None:
    kept = keeper.keep(sized(1), LEAK, [LEAK])
    expected = seeds.Seed(1, sized(1), (LEAK.record(),), {"torch": "2.13.0"}, is_smallest=False)
    assert seeds.load(kept.seed_file) == expected


def test_a_file_is_of_a_smallest_case_once_shrinking_has_ended_there(keeper: Keeper) -> None:
    path = keeper.keep(sized(1), LEAK, [LEAK]).seed_file
    keeper.rerun("leak", seeds.Reruns(1, 1))
    said = [seeds.load(path).is_smallest]
    for how in get_args(Shrunk):
        keeper.settle("leak", how)
        said.append(seeds.load(path).is_smallest)
    assert dict(zip(("kept", *get_args(Shrunk)), said, strict=True)) == {
        "kept": False,
        "smallest": True,
        "race": False,
        "time": False,
        "unfinished": False,
    }


def test_what_cannot_be_written_is_noted_without_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    keeper = Keeper(tmp_path / "taken", {})
    with pytest.raises(UsageError, match="cannot write"):
        keeper.keep(sized(1), LEAK, [LEAK])
    assert (keeper.found["leak"].finding, keeper.found["leak"].seed_file) == (LEAK.record(), "")
    (tmp_path / "taken").unlink()
    assert seeds.load(keeper.keep(sized(2), LEAK, [LEAK]).seed_file).scenario == sized(2)


def test_a_smaller_scenario_that_cannot_be_written_leaves_the_one_that_is_kept(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = keeper.keep(sized(2), LEAK, [LEAK])

    def full(*_: object) -> None:
        raise UsageError("cannot write: No space left on device")

    monkeypatch.setattr(seeds, "save", full)
    with pytest.raises(UsageError):
        keeper.keep(sized(1), LEAK, [LEAK])
    assert keeper.found["leak"] == kept


def test_a_smaller_scenario_replaces_a_larger_one(keeper: Keeper, tmp_path: Path) -> None:
    for count in (2, 1):
        keeper.keep(sized(count), LEAK, [LEAK])
    assert [seeds.load(path).scenario for path in tmp_path.iterdir()] == [sized(1)]


def test_a_larger_scenario_replaces_nothing(keeper: Keeper) -> None:
    for count in (1, 2):
        keeper.keep(sized(count), LEAK, [LEAK])
    assert keeper.found["leak"].scenario == sized(1)


@pytest.mark.parametrize(
    ("findings", "kept"), [([HANG, LEAK], 3), ([LEAK, HANG], 2)], ids=["it follows from another", "it leads"]
)
def test_a_rule_that_led_is_replaced_only_by_a_scenario_in_which_it_leads(
    keeper: Keeper, findings: list[Finding], kept: int
) -> None:
    keeper.keep(sized(3), LEAK, [LEAK])
    keeper.keep(sized(2), LEAK, findings)
    assert keeper.found["leak"].scenario == sized(kept)


def test_a_rule_that_leads_replaces_a_smaller_scenario_in_which_it_does_not(keeper: Keeper) -> None:
    keeper.keep(sized(1), LEAK, [HANG, LEAK])
    keeper.keep(sized(3), LEAK, [LEAK])
    assert keeper.found["leak"].scenario == sized(3)


EARLY, LATE = (Raised.by(cause)("shown", step=0, ranks=(0,)) for cause in ("KeyError in early", "KeyError in late"))


def test_two_exceptions_are_kept_apart_and_neither_is_taken_for_the_other(keeper: Keeper, tmp_path: Path) -> None:
    early = keeper.keep(sized(2), EARLY, [EARLY])
    late = keeper.keep(sized(1), LATE, [LATE])
    assert {seeds.load(found.seed_file).scenario for found in (early, late)} == {sized(1), sized(2)}
    assert (early.again([LATE], sized(1)), early.again([LATE, EARLY], sized(1)), late.again([LATE], sized(1))) == (
        None,
        EARLY,
        LATE,
    )
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} == {"raised"}


def test_one_exception_has_one_file_however_often_it_is_met(keeper: Keeper, tmp_path: Path) -> None:
    for count in (3, 2, 1, 2):
        keeper.keep(sized(count), EARLY, [EARLY])
    assert [seeds.load(path).scenario for path in tmp_path.iterdir()] == [sized(1)]


def test_a_file_of_that_signature_is_the_finding_s_own_and_learns_of_symptoms(keeper: Keeper, tmp_path: Path) -> None:
    keeper.keep(sized(1), LEAK, [LEAK])
    settled = keeper.settled("leak")
    theirs = seeds.Seed(1, sized(2), (LEAK.record(),), {}, signature=settled.signature, note="theirs")
    seeds.save(theirs, tmp_path / "theirs.json")  # by another run, since this one began
    for shown in ("hang", "raised"):
        settled.symptoms.add(Symptom(shown))
        keeper.sign("leak", settled)
    assert [*tmp_path.iterdir()] == [tmp_path / "theirs.json"] == [Path(keeper.found["leak"].seed_file)]
    kept = seeds.load(tmp_path / "theirs.json")
    assert kept == msgspec.structs.replace(theirs, symptoms=("hang", "leak", "raised"))


def test_a_file_that_comes_into_the_folder_after_a_signing_is_seen_at_the_next(keeper: Keeper, tmp_path: Path) -> None:
    own = keeper.keep(sized(1), LEAK, [LEAK]).seed_file
    settled = keeper.settled("leak")
    keeper.sign("leak", settled)
    seeds.save(seeds.load(own), tmp_path / "an-earlier-name.json")
    keeper.sign("leak", settled)
    assert [*tmp_path.iterdir()] == [tmp_path / "an-earlier-name.json"]


def test_the_same_error_is_kept_once_with_its_smallest_scenario(keeper: Keeper, tmp_path: Path) -> None:
    files = {keeper.keep_refused(sized(count), PluginError(f"of {count} elements")) for count in (2, 1, 3)}
    assert [seeds.load(path).scenario for path in tmp_path.iterdir()] == [sized(1)]
    assert len(files) == 2


def test_another_error_has_a_file_of_its_own(keeper: Keeper, tmp_path: Path) -> None:
    for count, message in enumerate(("it has no context", "it does not import"), 1):
        keeper.keep_refused(sized(count), PluginError(message))
    assert len(list(tmp_path.iterdir())) == 2
