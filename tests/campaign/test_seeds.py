"""Seed files: they come back as they were saved, are whole or not there, and are refused by name, untouched."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.campaign import seeds
from harness.errors import UsageError
from harness.oracle.findings import Record, StackRecord
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Ballast, Deny, Recreate, ReduceScatter, Release, Straggle, Trim
from harness.scenario.system import System
from harness.scenario.topology import LARGEST, Placement, Topology

SHIPPED = Path(__file__).parents[2] / "topologies" / "seeds"
PAIR = Topology("pair", "explicit", placement=Placement(2, 1), families_given={"tp": ((0, 1),), "cp": ((1, 0),)})
EVERY_STEP = (
    Allocate("whole", "tp", (64, 65), "bfloat16"),
    Allocate("part", "tp", 8, "bfloat16", "plain"),
    AllGather("tp", View("whole", 3), 4, claim=True),
    ReduceScatter("cp", View("whole"), 5, View("part", 1), "avg", "kernel"),
    Ballast("extra", "cp", 1, 4096),
    Recreate("tp"),
    Trim(),
    Straggle(0, 10),
    Deny(1),
    Release("whole"),
)
SCENARIO = Scenario(PAIR, EVERY_STEP, System("mine.pools:Mine", "mine.kernels:Mine"), 77)
SEED = seeds.Seed(
    seeds.SCHEMA, SCENARIO, (Record("wrong-owner", "because of step 2", 2, (0, 1)),), {"torch": "2.13.0", "nccl": None}
)


HANG = Record("hang", "rank 1 is late", 2, (0, 1), (StackRecord(1, "SIGUSR1", ("meet (a.py:1)",)),))


def test_what_a_link_leads_to_is_written_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "file").write_text("before")
    seeds.write_whole(tmp_path / "link", b"after")
    assert ((tmp_path / "link").is_symlink(), (tmp_path / "file").read_text()) == (True, "after")


def test_a_finding_with_stacks_comes_back_as_it_was(tmp_path: Path) -> None:
    seed = seeds.Seed(seeds.SCHEMA, SCENARIO, (HANG,), {})
    seeds.save(seed, tmp_path / "seed.json")
    assert seeds.load(tmp_path / "seed.json") == seed


def test_a_finding_without_stacks_is_kept_as_it_was_before_there_were_any(saved: Path) -> None:
    (finding,) = json.loads(saved.read_text())["findings"]
    assert finding == {"rule": "wrong-owner", "explanation": "because of step 2", "step": 2, "ranks": [0, 1]}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "seed.json"
    seeds.save(SEED, path)
    return path


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden files included."""
    return sorted(path.name for path in folder.iterdir())


def refusal(path: Path) -> str:
    """The sentence with which `load` refuses a file, less the name of the file that must open it."""
    with pytest.raises(seeds.SeedError) as refused:
        seeds.load(path)
    opening = f"seed file {path}: "
    assert str(refused.value).startswith(opening)
    return str(refused.value).removeprefix(opening)


# whole and back


def test_a_seed_comes_back_as_it_was_saved(saved: Path) -> None:
    assert seeds.load(saved) == SEED


def test_a_seed_file_says_its_schema(saved: Path) -> None:
    assert json.loads(saved.read_bytes())["schema"] == 1


def test_a_seed_may_be_given_as_text(saved: Path) -> None:
    assert seeds.load(str(saved)) == SEED


def test_saving_leaves_nothing_beside_the_file(saved: Path) -> None:
    assert names(saved.parent) == ["seed.json"]


def test_saving_makes_the_folder(tmp_path: Path) -> None:
    seeds.save(SEED, tmp_path / "kept" / "here" / "seed.json")
    assert names(tmp_path / "kept" / "here") == ["seed.json"]


def test_saving_again_replaces_the_seed(saved: Path) -> None:
    other = seeds.Seed(seeds.SCHEMA, SCENARIO, (), {})
    seeds.save(other, saved)
    assert seeds.load(saved) == other


# found by name


def test_a_shipped_seed_is_found_by_name() -> None:
    assert seeds.find("hang-of-uneven-tokens") == seeds.load(SHIPPED / "hang-of-uneven-tokens.json")


def test_every_seed_that_ships_has_a_name() -> None:
    assert seeds.named().keys() == {path.stem for path in SHIPPED.glob("*.json")} != set()


def test_a_file_comes_before_a_shipped_seed_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds.save(SEED, tmp_path / "hang-of-uneven-tokens")
    monkeypatch.chdir(tmp_path)
    assert seeds.find("hang-of-uneven-tokens") == SEED


def test_a_name_that_is_neither_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(seeds.SeedError) as refused:
        seeds.find("nothing-like-it")
    assert str(refused.value) == f"seed 'nothing-like-it' is neither a file nor one of {', '.join(seeds.named())}"


def test_a_misspelled_name_is_refused_with_the_one_that_is_close() -> None:
    with pytest.raises(seeds.SeedError, match=r"; did you mean hang-of-uneven-tokens\?$"):
        seeds.find("hang-of-uneven-token")


@pytest.mark.parametrize("name", ["nowhere.json", "kept/hang-of-uneven-tokens", ""])
def test_what_reads_as_a_path_is_refused_as_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(seeds.SeedError, match=f"^seed file {name or repr(name)}: "):
        seeds.find(name)


# what cannot be read


def changed(saved: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit a seed file by hand."""
    data = json.loads(saved.read_bytes())
    change(data)
    saved.write_text(json.dumps(data))


DAMAGED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a later schema": (lambda data: data.update(schema=2), "schema 2"),
    "no schema": (lambda data: data.pop("schema"), "schema None"),
    "a schema in words": (lambda data: data.update(schema="1"), "schema '1'"),
    "a schema that is merely true": (lambda data: data.update(schema=True), "schema"),
    "an unknown key": (lambda data: data.update(extra=1), "`extra`"),
    "no scenario": (lambda data: data.pop("scenario"), "`scenario`"),
    "an unknown step": (lambda data: data["scenario"]["steps"][0].update(kind="explode"), "'explode'"),
    "an unknown key in a step": (lambda data: data["scenario"]["steps"][0].update(colour="red"), "`colour`"),
    "a program that cannot run": (lambda data: data["scenario"]["steps"].pop(0), "step 1 (all_gather)"),
    "a topology that does not hold together": (
        lambda data: data["scenario"]["topology"]["families"].update(tp=[[0, 0]]),
        "family 'tp'",
    ),
    "a data seed that no rank can be sent": (lambda data: data["scenario"].update(seed=1 << 70), "seed"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_seed_is_refused_with_what_is_wrong(saved: Path, damage: str) -> None:
    change, said = DAMAGED[damage]
    changed(saved, change)
    assert said in refusal(saved)


UNREADABLE = {
    "empty": b"",
    "cut short": b'{"schema": 1, "scenario": {"topo',
    "no object": b"[1]",
    "not UTF-8": b'{"schema": 1, "note": "\xff"}',
    "too deep": b"[" * 100_000,
    "a repeated key": b'{"schema": 1, "schema": 1}',
    "too large": b'{"schema": 1, "note": "' + b"x" * LARGEST + b'"}',
}


@pytest.mark.parametrize("content", UNREADABLE)
def test_a_file_that_is_no_seed_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "seed.json"
    path.write_bytes(UNREADABLE[content])
    assert refusal(path)


@pytest.mark.parametrize("content", UNREADABLE)
def test_a_file_that_is_no_seed_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "seed.json"
    path.write_bytes(UNREADABLE[content])
    refusal(path)
    assert path.read_bytes() == UNREADABLE[content]


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere.json") == "No such file or directory"


def test_a_place_that_takes_no_file_is_refused_at_once() -> None:
    """Even of an administrator, who may write anywhere."""
    with pytest.raises(UsageError, match=r"seeds directory /proc/kept: /proc is not writable \("):
        seeds.check_folder(Path("/proc/kept"))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    assert refusal(tmp_path / "pipe.json") == "it is no regular file"


def test_an_empty_name_is_shown_as_such() -> None:
    """As a shell gives it for a variable that is not set."""
    with pytest.raises(seeds.SeedError, match="seed file '': "):
        seeds.load("")


def test_a_folder_is_refused_by_name(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "Is a directory"


# writing whole


def fails_with(error: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def fails_halfway(path: Path, data: bytes) -> int:
    """What `write_bytes` does on a disk that becomes full."""
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_refused_naming_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_bytes", fails_halfway)
    with pytest.raises(UsageError, match=r"full\.json: No space left on device"):
        seeds.write_whole(tmp_path / "full.json", b"whole")


def test_a_full_disk_leaves_no_half_written_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_bytes", fails_halfway)
    with pytest.raises(UsageError):
        seeds.write_whole(tmp_path / "full.json", b"whole")
    assert names(tmp_path) == []


def test_a_full_disk_leaves_the_seed_before_it(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_bytes", fails_halfway)
    with pytest.raises(UsageError):
        seeds.save(seeds.Seed(seeds.SCHEMA, SCENARIO, (), {}), saved)
    assert seeds.load(saved) == SEED


def test_ctrl_c_while_writing_leaves_no_half_written_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "replace", fails_with(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        seeds.write_whole(tmp_path / "seed.json", b"whole")
    assert names(tmp_path) == []


def test_a_place_that_cannot_be_written_is_refused_naming_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match=r"cannot write .*file/seed\.json"):
        seeds.write_whole(tmp_path / "file" / "seed.json", b"whole")


# names and folders


# a file that shrinks


def seed_of(number: int) -> seeds.Seed:
    return seeds.Seed(seeds.SCHEMA, msgspec.structs.replace(SCENARIO, seed=number), (), {})


def kept(folder: Path) -> list[int]:
    return sorted(seeds.load(path).scenario.seed for path in folder.iterdir())


def test_a_smaller_case_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    file = seeds.SeedFile(tmp_path, "hang")
    paths = [file.save(seed_of(number)) for number in (1, 2, 2, 3)]
    assert (kept(tmp_path), len({*paths})) == ([3], 3)


def test_what_was_kept_before_stays_and_is_not_replaced_by_another_scenario(tmp_path: Path) -> None:
    seeds.SeedFile(tmp_path, "hang").save(seed_of(1))
    later = seeds.SeedFile(tmp_path, "hang")
    for number in (2, 1, 1, 3):
        later.save(seed_of(number))
    assert kept(tmp_path) == [1, 3]


def test_what_another_run_has_written_since_stays(tmp_path: Path) -> None:
    file, other = (seeds.SeedFile(tmp_path, "hang") for _ in range(2))
    file.save(seed_of(1))
    other.save(seed_of(1))
    file.save(seed_of(2))
    assert kept(tmp_path) == [1, 2]


def test_what_another_run_has_written_since_stays_also_once_it_is_written_here_again(tmp_path: Path) -> None:
    file, other = (seeds.SeedFile(tmp_path, "hang") for _ in range(2))
    for one, number in ((file, 1), (other, 1), (file, 1), (file, 2)):
        one.save(seed_of(number))
    assert kept(tmp_path) == [1, 2]


def test_what_is_known_of_runs_on_fresh_ranks_is_not_lost_where_the_scenario_fails_again(tmp_path: Path) -> None:
    ran = msgspec.structs.replace(seed_of(1), reruns=seeds.Reruns(0, 10, after=1), preceded_by=(SCENARIO,))
    path = seeds.SeedFile(tmp_path, "hang").save(ran)
    later = seeds.SeedFile(tmp_path, "hang")
    assert (later.save(seed_of(1)), seeds.load(path)) == (path, ran)
    anew = msgspec.structs.replace(seed_of(1), reruns=seeds.Reruns(1, 1))
    assert (later.save(anew), seeds.load(path)) == (path, anew)


def test_what_a_file_of_the_same_scenario_says_besides_is_not_lost(tmp_path: Path) -> None:
    first = msgspec.structs.replace(seed_of(1), note="ask the pool's owner", symptoms=("leak",), signature="a" * 16)
    path = seeds.SeedFile(tmp_path, "hang").save(first)
    later, unsigned = seeds.SeedFile(tmp_path, "hang"), msgspec.structs.replace(seed_of(1), is_smallest=False)
    assert (later.save(unsigned), seeds.load(path)) == (path, first)
    signed = msgspec.structs.replace(unsigned, symptoms=("hang",), signature="b" * 16)
    later.save(signed)
    assert seeds.load(path) == msgspec.structs.replace(signed, note=first.note, symptoms=("hang", "leak"))


def test_a_file_that_somebody_has_removed_is_not_missed(tmp_path: Path) -> None:
    file = seeds.SeedFile(tmp_path, "hang")
    Path(file.save(seed_of(1))).unlink()
    file.save(seed_of(2))
    assert kept(tmp_path) == [2]


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        (System("per-group"), "symm replay 'my seeds/a.json'"),
        (System("harness.system.planted.pools:KeepsATensor"), "symm replay 'my seeds/a.json'"),
        (System("my.pool:P"), "symm replay 'my seeds/a.json' --pool my.pool:P"),
        (System("my.pool:P", "k:K"), "symm replay 'my seeds/a.json' --pool my.pool:P --collectives k:K"),
    ],
)
def test_the_command_that_replays_a_seed_names_its_plug_ins(system: System, expected: str) -> None:
    assert seeds.command("my seeds/a.json", system) == expected
    assert seeds.command("my seeds/a.json", system, "--substrate", "sim") == f"{expected} --substrate sim"


def test_a_seed_file_is_named_after_its_rule() -> None:
    assert seeds.name_for("wrong-owner", SCENARIO).startswith("wrong-owner-")


def test_the_same_scenario_has_the_same_file_name() -> None:
    again = Scenario(PAIR, EVERY_STEP, SCENARIO.system, SCENARIO.seed)
    assert seeds.name_for("hang", again) == seeds.name_for("hang", SCENARIO)


def test_another_scenario_has_another_file_name() -> None:
    other = Scenario(PAIR, EVERY_STEP[:-1], SCENARIO.system, SCENARIO.seed)
    assert seeds.name_for("hang", other) != seeds.name_for("hang", SCENARIO)


@pytest.mark.parametrize("name", ["", "new", "new/below"])
def test_a_folder_that_is_there_or_can_be_made_is_accepted(tmp_path: Path, name: str) -> None:
    seeds.check_folder(tmp_path / name)
    seeds.save(SEED, tmp_path / name / "seed.json")
    assert seeds.load(tmp_path / name / "seed.json") == SEED


def test_checking_a_folder_makes_nothing(tmp_path: Path) -> None:
    seeds.check_folder(tmp_path / "new")
    assert names(tmp_path) == []


@pytest.mark.parametrize("below", [(), ("new",)])
def test_a_file_in_place_of_the_folder_is_refused_by_name(tmp_path: Path, below: tuple[str, ...]) -> None:
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path.joinpath("file", *below)
    with pytest.raises(UsageError, match=f"seeds directory {folder}: "):
        seeds.check_folder(folder)
