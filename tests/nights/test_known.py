"""Known findings: read from seed files, run again within a small budget, and told apart by what their runs say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from harness.campaign import seeds
from harness.campaign.seeds import Reruns, Seed
from harness.campaign.symptoms import Symptom
from harness.errors import UsageError
from harness.nights import known
from harness.nights.known import UNSURE_RUNS, Folder, replay
from harness.oracle.findings import Record
from harness.scenario.scenario import Scenario
from harness.scenario.system import System
from harness.world.world import World
from tests.tools.campaigns import LEAKING, TWO, campaign_of, layers
from tests.tools.clock import FakeClock

LEAK = Record("leak", "shown", 1 << 20, (0,))
ONE = Scenario(TWO, layers(1), LEAKING.system)
NAMED = (ONE.system.pool,)
OLD = Seed(seeds.SCHEMA, ONE, (LEAK,), {})
"""From before there were signatures."""


def folder_of(path: Path, *held: Seed) -> Folder:
    for number, seed in enumerate(held):
        seeds.save(seed, path / f"{number}.json")
    return Folder(path)


class Turns:
    """A world on which known cases fail as `fails` says, in turn; each run takes a second."""

    size, platform = 8, SimpleNamespace(name="sim")

    def __init__(self, *fails: bool) -> None:
        self.time, self.fails, self.ran, self.is_vacuous = FakeClock(), [*fails], 0, False

    def run(self, scenario: Scenario, *, hurried: bool) -> Any:
        self.ran += 1
        self.time.advance(1)
        fails = self.fails.pop(0) if self.fails else False
        return SimpleNamespace(findings=[LEAK] if fails else [], is_vacuous=self.is_vacuous, is_clean=True)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "examine", lambda draw: draw)


def tried(folder: Folder, turns: Turns, minutes: float | None = 60, named: tuple[str, ...] = NAMED) -> float:
    world: Any = turns
    return replay(world, folder, minutes, 0, named, turns.time.clock)


def test_a_case_that_the_world_refuses_stays_untried_and_the_others_run(tmp_path: Path, judged: None) -> None:
    class Refusing(Turns):
        def run(self, scenario: Scenario, *, hurried: bool) -> Any:
            if scenario == ONE:
                raise UsageError("no such kernel here")
            return super().run(scenario, hurried=hurried)

    two = msgspec.structs.replace(OLD, scenario=Scenario(TWO, layers(2), LEAKING.system), signature="aa")
    folder = folder_of(tmp_path, OLD, two)
    tried(folder, Refusing(True))
    assert sorted((each.refused, each.status) for each in folder) == [("", "known"), ("no such kernel here", "untried")]


def test_a_folder_that_is_not_there_yet_has_nothing_known(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "later")
    assert ([*folder], folder.is_given, Folder(None).is_given) == ([], True, False)


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file: it is not a directory"):
        Folder(tmp_path / "file")


def test_a_file_that_is_no_seed_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "torn.json").write_text("{")
    folder = folder_of(tmp_path, OLD)
    assert [each.rule for each in folder] == ["leak"]
    assert "torn.json" in folder.unread[0]


def test_two_files_of_one_signature_are_one_finding(tmp_path: Path) -> None:
    same = msgspec.structs.replace(OLD, scenario=msgspec.structs.replace(ONE, seed=7))
    assert len(folder_of(tmp_path, OLD, same).all) == 1


@pytest.mark.parametrize(
    ("fails", "status", "rate"),
    [
        ([True], "known", (1, 1)),
        ([False, True], "flaky", (1, 2)),
        ([False] * UNSURE_RUNS, "gone", (0, UNSURE_RUNS)),
    ],
)
@pytest.mark.usefixtures("judged")
def test_runs_say_whether_a_finding_is_known_flaky_or_gone(
    tmp_path: Path, fails: list[bool], status: str, rate: tuple[int, int]
) -> None:
    folder = folder_of(tmp_path, OLD)
    tried(folder, Turns(*fails))
    (found,) = folder
    assert (found.status, found.rate) == (status, rate)


@pytest.mark.usefixtures("judged")
def test_a_case_that_fails_rarely_needs_more_runs_to_be_gone(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, msgspec.structs.replace(OLD, reruns=Reruns(2, 8)))
    turns = Turns()
    tried(folder, turns)
    assert ([each.status for each in folder], turns.ran) == (["gone"], 12)


@pytest.mark.usefixtures("judged")
def test_a_run_that_tested_nothing_is_no_pass(tmp_path: Path) -> None:
    folder, turns = folder_of(tmp_path, OLD), Turns()
    turns.is_vacuous = True
    tried(folder, turns)
    assert ([(each.status, each.runs) for each in folder], turns.ran) == ([("untried", 0)], 2)


@pytest.mark.parametrize(
    "seed",
    [
        msgspec.structs.replace(OLD, environment={"substrate": "nccl"}),
        msgspec.structs.replace(OLD, reruns=Reruns(0, 10)),
    ],
    ids=["of another substrate", "that never came again"],
)
@pytest.mark.usefixtures("judged")
def test_passes_of_a_case_do_not_say_that_it_is_gone(tmp_path: Path, seed: Seed) -> None:
    folder = folder_of(tmp_path, seed)
    tried(folder, Turns())
    assert [each.status for each in folder] == ["untried"]


@pytest.mark.usefixtures("judged")
def test_runs_take_a_small_share_of_the_night(tmp_path: Path) -> None:
    others = [msgspec.structs.replace(OLD, findings=(msgspec.structs.replace(LEAK, cause=str(n)),)) for n in range(200)]
    folder, turns = folder_of(tmp_path, *others), Turns()
    left = tried(folder, turns, minutes=10)
    assert (turns.ran, sum(each.runs for each in folder), left) == (18, 18, 10 - 18 / 60)
    assert folder.replayed == 18


@pytest.mark.usefixtures("judged")
def test_what_is_met_in_a_draw_is_not_gone(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, OLD)
    tried(folder, Turns())
    (found,) = folder
    found.settled.draws = 1
    assert found.status == "flaky"


@pytest.mark.usefixtures("judged")
def test_a_plug_in_that_the_command_does_not_name_does_not_run(tmp_path: Path) -> None:
    foreign = msgspec.structs.replace(OLD, scenario=msgspec.structs.replace(ONE, system=System("mine:Pool")))
    for named, ran in (((), 0), (("mine:Pool",), 1)):
        turns = Turns(True)
        tried(folder_of(tmp_path, foreign), turns, named=named)
        assert turns.ran == ran


@pytest.mark.usefixtures("judged")
def test_an_old_file_gets_its_signature_when_its_case_fails_again(tmp_path: Path) -> None:
    for fails in (False, True):
        folder = folder_of(tmp_path, OLD)
        tried(folder, Turns(*[fails] * UNSURE_RUNS))
        folder.save()
        assert bool(seeds.load(tmp_path / "0.json").signature) == fails
    (found,) = Folder(tmp_path)
    assert found.seed.signature == found.settled.signature


def test_a_symptom_that_shrank_to_a_known_finding_is_noted_in_its_file(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, msgspec.structs.replace(OLD, signature="0" * 16))
    (found,) = folder
    found.settled.symptoms.add(Symptom("wrong-data", "leak"))
    folder.save()
    (again,) = Folder(tmp_path)
    assert Symptom("wrong-data", "leak") in again.settled.symptoms


def test_what_others_did_to_a_file_in_the_night_stays(tmp_path: Path) -> None:
    signed = msgspec.structs.replace(OLD, signature="0" * 16)
    other = msgspec.structs.replace(signed, findings=(msgspec.structs.replace(LEAK, cause="other"),))
    folder = folder_of(tmp_path, signed, other)
    for each in folder:
        each.settled.symptoms.add(Symptom("wrong-data", "leak"))
    seeds.save(msgspec.structs.replace(signed, note="ours", symptoms=("hang",)), tmp_path / "0.json")
    (tmp_path / "1.json").unlink()
    folder.save()
    (path,) = tmp_path.iterdir()
    again = seeds.load(path)
    assert (again.note, again.symptoms) == ("ours", ("hang", "leak", "wrong-data beside leak"))


def test_a_second_night_counts_what_the_first_one_found_and_keeps_no_second_file(
    simulation: World, tmp_path: Path
) -> None:
    first = campaign_of(simulation, tmp_path, search_seconds=20).run(2)
    (path,) = tmp_path.iterdir()
    folder = Folder(tmp_path)
    (found,) = folder
    assert found.settled.signature == first.found["leak"].signature == seeds.load(path).signature
    replay(simulation, folder, 1, 0, NAMED)
    second = campaign_of(simulation, tmp_path, known=[each.settled for each in folder]).run(2)
    assert (second.found, second.shrinking, found.settled.draws > 0) == ({}, 0, True)
    assert ([*tmp_path.iterdir()], found.status) == ([path], "known")


def test_without_known_ones_a_second_night_finds_again_and_names_the_file_that_is_there(
    simulation: World, tmp_path: Path
) -> None:
    campaign_of(simulation, tmp_path, search_seconds=20).run(1)
    (path,) = tmp_path.iterdir()
    kept = seeds.load(path)
    path.unlink()
    seeds.save(kept, tmp_path / "named-by-its-owner.json")
    again = campaign_of(simulation, tmp_path, search_seconds=20).run(1)
    assert {found.seed_file for found in again.found.values()} == {str(tmp_path / "named-by-its-owner.json")}
    assert len([*tmp_path.iterdir()]) == 1


def test_a_hang_that_is_known_is_not_waited_for(tmp_path: Path) -> None:
    hang = Record("hang", "rank 1 registers for tp while rank 0 waits in all_gather of tp.", 1, (0, 1))
    folder = folder_of(tmp_path, msgspec.structs.replace(OLD, findings=(hang,)))
    ran: list[bool] = []

    def run(scenario: Scenario, *, hurried: bool = False) -> Any:
        ran.append(hurried)
        raise KeyboardInterrupt

    world: Any = SimpleNamespace(run=run)
    for settled in ([each.settled for each in folder], []):
        campaign = campaign_of(world, tmp_path, known=settled)
        with pytest.raises(KeyboardInterrupt):
            campaign.run(1)
    assert ran == [True, False]
