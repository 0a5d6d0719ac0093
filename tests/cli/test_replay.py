"""`symm replay`: a seed that still fails, on its own system or on another, and what is shown of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from harness.campaign import seeds
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate, Deny
from harness.scenario.system import System
from harness.scenario.topology import Topology
from tests.tools.campaigns import layers
from tests.tools.commands import Run, forked
from tests.tools.folders import PLUG_INS, SIM, facts, seed_file, sentence
from tests.tools.planted import memory

PAIR = Topology("pair", "sglang", {"tp": 2})
WRONG_POOL = "harness.system.planted.pools:KeepsATensor"


@pytest.fixture(scope="module")
def found(place: Callable[[str], Path]) -> Run:
    wrong = "--pool", WRONG_POOL, "--world", "2", "--draws", "8", "--shrink-seconds", "2"
    return forked(place("found"), "fuzz", *wrong, *SIM, "--json", "found.json")


@pytest.fixture(scope="module")
def kept(found: Run) -> Path:
    """The seed file of the first finding."""
    return found.folder / facts(found)["findings"][0]["seed_file"]


def test_plug_ins_from_the_working_directory_are_used(tmp_path: Path) -> None:
    """The pool mends the seed's own finding, and the kernel brings another."""
    (tmp_path / "mine.py").write_text(PLUG_INS)
    seed_file(tmp_path)
    options = "--pool", "mine:Right", "--collectives", "mine:Idle"
    run = forked(tmp_path, "replay", "seed.json", *SIM, *options, "--json", "-")
    assert {finding["rule"] for finding in run.data["runs"][0]} == {"wrong-data"}


STRANGER = f"from pathlib import Path\nPath('imported').touch()\n{PLUG_INS}"


def of_a_stranger(folder: Path, system: System) -> None:
    """A seed that names plug-ins, and their module, which shows that it was imported."""
    (folder / "mine.py").write_text(STRANGER)
    seeds.save(seeds.Seed(seeds.SCHEMA, Scenario(PAIR, (Allocate("a", "tp", 8),), system), (), {}), folder / "s.json")


@pytest.mark.parametrize(
    ("system", "options", "named"),
    [
        (System("mine:Right"), (), "pool 'mine:Right'"),
        (System(collectives="mine:Idle"), ("--collectives", "mine:OnlyGathers", "--pool", "mine:Right"), ""),
        (System(collectives="mine:Idle"), ("--pool", "per-group"), "collectives 'mine:Idle'"),
    ],
)
def test_a_seed_runs_no_plug_in_that_the_command_does_not_name(
    tmp_path: Path, system: System, options: tuple[str, ...], named: str
) -> None:
    of_a_stranger(tmp_path, system)
    run = forked(tmp_path, "replay", "s.json", *SIM, *options)
    assert (run.status, named in run.err) == (2, True)
    assert (tmp_path / "imported").exists() is not bool(named)


def test_a_planted_fault_of_the_harness_brings_nothing_from_the_working_directory(tmp_path: Path) -> None:
    of_a_stranger(tmp_path, System(WRONG_POOL))
    (tmp_path / "torch.py").write_text(STRANGER)
    assert forked(tmp_path, "replay", "s.json", *SIM).status == 1
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("options", [("--pool", "mine:Right"), ("--allow-plugins",)])
def test_a_seed_runs_a_plug_in_that_is_named_or_allowed(tmp_path: Path, options: tuple[str, ...]) -> None:
    of_a_stranger(tmp_path, System("mine:Right"))
    assert forked(tmp_path, "replay", "s.json", *SIM, *options).status == 0
    assert (tmp_path / "imported").exists()


@pytest.fixture(scope="module")
def replayed(found: Run, kept: Path) -> tuple[Run, bytes]:
    """A found seed run again, and what was in its file before."""
    before = kept.read_bytes()
    return forked(found.folder, "replay", str(kept), *SIM, "--times", "3", "--json", "-"), before


def test_a_seed_that_still_fails_exits_with_1(replayed: tuple[Run, bytes]) -> None:
    assert replayed[0].status == 1


def test_a_replay_runs_as_often_as_asked(replayed: tuple[Run, bytes]) -> None:
    data = replayed[0].data
    assert (len(data["runs"]), data["failed"]) == (3, 3)


def test_a_replay_finds_what_the_seed_holds_every_time(replayed: tuple[Run, bytes], kept: Path) -> None:
    rules = [record.rule for record in seeds.load(kept).findings]
    assert [[finding["rule"] for finding in run] for run in replayed[0].data["runs"]] == [rules] * 3


def test_a_replay_shows_what_it_found(replayed: tuple[Run, bytes], kept: Path) -> None:
    assert seeds.load(kept).findings[0].rule in replayed[0].err


@pytest.fixture(scope="module")
def hung(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A seed of a hang, run again."""
    folder = tmp_path_factory.mktemp("hung")
    denied = Scenario(PAIR, (Deny(1), Allocate("a", "tp", 8)), System("per-group"))
    seeds.save(seeds.Seed(seeds.SCHEMA, denied, (), {}), folder / "seed.json")
    return forked(folder, "replay", "seed.json", *SIM, "--json", "-")


def test_a_replayed_hang_shows_where_each_rank_is(hung: Run) -> None:
    shown = [line.strip("│ ") for line in hung.err.splitlines() if line.startswith("│ rank ")]
    assert ["rendezvous.py:" in line for line in shown if ": in " in line] == [True, True]


def test_a_replayed_hang_has_its_stacks_in_the_json(hung: Run) -> None:
    hang = next(finding for finding in hung.data["runs"][0] if finding["rule"] == "hang")
    assert [(stack["rank"], bool(stack["frames"])) for stack in hang["stacks"]] == [(0, True), (1, True)]


def test_a_replay_leaves_the_seed_as_it_was(replayed: tuple[Run, bytes], kept: Path) -> None:
    assert kept.read_bytes() == replayed[1]


def test_a_replay_leaves_no_process(replayed: tuple[Run, bytes]) -> None:
    assert replayed[0].processes == []


def test_a_shipped_seed_is_replayed_by_name_in_any_folder(tmp_path: Path) -> None:
    run = forked(tmp_path, "replay", "wrong-owner-found-on-sim", *SIM, "--json", "-")
    assert [finding["rule"] for finding in run.data["runs"][0]] == ["wrong-owner"]


def test_the_draws_that_a_seed_needs_run_before_each_run_of_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(Path(memory.__file__).read_text())
    pool = System("mine:LeaksAfterThree")
    two, three = (Scenario(PAIR, layers(count), pool) for count in (2, 3))
    seeds.save(seeds.Seed(seeds.SCHEMA, two, (), {}, seeds.Reruns(0, 10, 1), (three,)), tmp_path / "s.json")
    seeds.save(seeds.Seed(seeds.SCHEMA, two, (), {}), tmp_path / "alone.json")
    runs = [
        forked(tmp_path, "replay", name, *SIM, "--allow-plugins", "--times", "2", "--json", "-")
        for name in ("s.json", "alone.json")
    ]
    assert [(run.status, run.data["failed"]) for run in runs] == [(1, 2), (0, 0)]
    assert "draws before each run, on fresh ranks: 1" in runs[0].err


def test_a_seed_runs_no_plug_in_that_only_a_draw_before_it_names(tmp_path: Path) -> None:
    of_a_stranger(tmp_path, System())
    before = (Scenario(PAIR, (Allocate("a", "tp", 8),), System("mine:Right")),)
    seeds.save(msgspec.structs.replace(seeds.load(tmp_path / "s.json"), preceded_by=before), tmp_path / "s.json")
    run = forked(tmp_path, "replay", "s.json", *SIM)
    assert (run.status, "pool 'mine:Right'" in run.err) == (2, True)
    assert not (tmp_path / "imported").exists()


LONG = (*(Allocate(f"a{index}", "tp", 8) for index in range(6)), Deny(1), Allocate("b", "tp", 1 << 20))
"""Rank 1 is refused its last segment, which the others register."""


def long_seed(folder: Path, note: str = "") -> None:
    scenario = Scenario(PAIR, LONG, System("per-group"))
    seeds.save(seeds.Seed(seeds.SCHEMA, scenario, (), {}, note=note), folder / "long.json")


def test_a_seed_is_made_smaller_and_keeps_its_note(tmp_path: Path) -> None:
    long_seed(tmp_path, note="from an old night")
    options = "--shrink", "--shrink-seconds", "20", "--seeds-dir", "small", "--json", "-"
    run = forked(tmp_path, "replay", "long.json", *SIM, *options)
    kept = seeds.load(tmp_path / run.data["seed_file"])
    assert (run.status, run.data["finding"]["rule"], kept.findings[0].rule) == (1, *["registration-skew"] * 2)
    assert len(kept.scenario.steps) < len(LONG)
    assert kept.note == "from an old night"
    assert f"shrunk from 2 ranks and {len(LONG)} steps to" in run.err


def test_what_does_not_fail_is_not_shrunk(tmp_path: Path) -> None:
    seeds.save(seeds.Seed(seeds.SCHEMA, Scenario(PAIR, LONG[:1]), (), {}), tmp_path / "sound.json")
    run = forked(tmp_path, "replay", "sound.json", *SIM, "--shrink")
    assert (run.status, "nothing to shrink" in run.out, [path.name for path in tmp_path.iterdir()]) == (
        0,
        True,
        ["sound.json"],
    )


def test_several_pools_stand_beside_each_other_with_the_step_at_which_they_part(tmp_path: Path) -> None:
    pools = "--pool", "shared-at-alloc", "--pool", "per-group"
    run = forked(tmp_path, "replay", "wrong-owner-found-on-sim", *SIM, *pools, "--json", "-")
    first, second = run.data["pools"]
    assert (run.status, first["system"], [each["rule"] for each in first["findings"]]) == (
        1,
        "shared-at-alloc",
        ["wrong-owner"],
    )
    assert (second["system"], second["findings"], second["first_difference"]["step"]) == ("per-group", [], 1)
    assert "wrong-owner at step 2" in run.err


def test_a_note_is_kept_in_the_file_and_shown(tmp_path: Path) -> None:
    long_seed(tmp_path)
    first = forked(tmp_path, "replay", "long.json", *SIM, "--note", "the runner of \x1b[1mTuesday")
    second = forked(tmp_path, "replay", "long.json", *SIM)
    assert seeds.load(tmp_path / "long.json").note == "the runner of \x1b[1mTuesday"
    for run in (first, second):
        assert r"note: the runner of \x1b[1mTuesday" in run.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--shrink", "--times", "2"), "--shrink does not go with --times"),
        (("--shrink", "--pool", "deferred", "--pool", "per-group"), "--shrink does not go with several --pool"),
        (("--pool", "deferred", "--pool", "per-group", "--pdb", "0"), "several --pool does not go with --pdb"),
        (("--note", "mine"), "--note is kept in a seed file"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    run = forked(tmp_path, "replay", "wrong-owner-found-on-sim", *SIM, *options)
    assert run.status == 2
    assert words in sentence(run)
