"""The command line: each command's facts and exit status, and one sentence for everything that is wrong.

Commands run as processes of their own in a folder of their own. What several tests look at is run once.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.campaign import seeds
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Deny, Release
from harness.scenario.system import System
from harness.scenario.topology import Topology, find, named, save
from tests.tools.commands import ALONE, Run, forked, symm
from tests.tools.processes import left, marked, new_mark

SIM = ("--substrate", "sim")
SHORT = ("--draws", "5", "--world", "2", *SIM)
THREE = Topology("three", "explicit", families_given={"tp": ((0, 1, 2),), "cp": ((0, 1), (2,))})
REUSE = (
    Allocate("first", "tp", 8),
    Release("first"),
    Allocate("second", "cp", 8),
    AllGather("cp", View("second"), 4, via="kernel"),
)
"""Wrong on one pool for all groups: the second buffer lies in the window of the first one's group."""


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def seed_file(folder: Path, name: str = "seed.json", pool: str = "shared-at-alloc") -> Path:
    path = folder / name
    seeds.save(seeds.Seed(seeds.SCHEMA, Scenario(THREE, REUSE, System(pool)), (), {}), path)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A new folder, named after what runs in it."""
    return lambda name: tmp_path_factory.mktemp(name.replace(" ", "-"))


# a clean run


@pytest.fixture(scope="module")
def clean(place: Callable[[str], Path]) -> Run:
    return symm(place("clean"), "fuzz", "--draws", "30", "--world", "2", "--json", "-")


def test_a_run_without_findings_exits_with_0(clean: Run) -> None:
    assert clean.status == 0


def test_a_run_without_findings_writes_no_file(clean: Run) -> None:
    assert content(clean.folder) == {}


def test_a_run_leaves_no_process(clean: Run) -> None:
    assert clean.processes == []


def test_a_run_writes_the_facts_that_are_promised(clean: Run) -> None:
    promised = {"schema", "draws", "seconds", "draws_per_second", "layouts", "groups", "collectives", "windows"}
    assert promised | {"vacuous", "oracles", "environment", "findings"} <= clean.data.keys()


def test_a_run_makes_as_many_draws_as_asked(clean: Run) -> None:
    assert (clean.data["draws"], clean.data["findings"]) == (30, [])


@pytest.mark.parametrize("count", ["draws_per_second", "layouts", "groups", "collectives", "windows"])
def test_a_run_counts_what_it_covered(clean: Run, count: str) -> None:
    assert clean.data[count] > 0


def test_a_run_says_which_oracles_were_on(clean: Run) -> None:
    assert {"ownership", "data"} <= set(clean.data["oracles"])


def test_json_on_stdout_leaves_words_to_stderr(clean: Run) -> None:
    assert "30 draws" in clean.err


def test_auto_says_what_it_chose_and_why(clean: Run) -> None:
    assert "substrate sim: no GPU is visible" in clean.err


# a faulty pool


def hunt(folder: Path) -> Run:
    """The run that the specification promises a finding for."""
    wrong = "--pool", "shared-at-alloc", "--world", "4", "--draws", "8", "--seed", "7"
    return symm(folder, "fuzz", *wrong, *SIM, "--seeds-dir", "kept", "--json", "found.json")


def short_hunt(folder: Path) -> Run:
    """One with a finding that is soon made small."""
    wrong = "--pool", "harness.system.planted.pools:KeepsATensor", "--world", "2", "--draws", "8"
    return symm(folder, "fuzz", *wrong, *SIM, "--json", "found.json")


def facts(run: Run, name: str = "found.json") -> Any:
    return json.loads((run.folder / name).read_bytes())


@pytest.fixture(scope="module")
def found(place: Callable[[str], Path]) -> Run:
    return hunt(place("found"))


@pytest.fixture(scope="module")
def kept(found: Run) -> Path:
    """The seed file of the first finding."""
    return found.folder / facts(found)["findings"][0]["seed_file"]


def test_a_run_with_findings_exits_with_1(found: Run) -> None:
    assert found.status == 1


def test_a_run_with_findings_leaves_no_process(found: Run) -> None:
    assert found.processes == []


def test_the_pool_for_all_groups_is_found_to_break_wrong_owner(found: Run) -> None:
    assert "wrong-owner" in [finding["rule"] for finding in facts(found)["findings"]]


def test_findings_are_shrunk_to_few_ranks_and_steps(found: Run) -> None:
    large = [finding for finding in facts(found)["findings"] if finding["world"] > 4 or finding["steps"] > 6]
    assert large == []


def test_a_finding_says_all_that_is_promised(found: Run) -> None:
    promised = {"rule", "explanation", "seed_file", "world", "steps"}
    assert [promised - finding.keys() for finding in facts(found)["findings"]] == [set()] * len(
        facts(found)["findings"]
    )


def test_a_finding_is_explained_on_stdout(found: Run) -> None:
    words = " ".join(found.out.replace("│", " ").split())
    assert [f["rule"] for f in facts(found)["findings"] if " ".join(f["explanation"].split()) not in words] == []


def test_a_finding_names_the_command_that_replays_it(found: Run) -> None:
    shown = [line.partition("symm replay ")[2].strip() for line in found.out.splitlines() if "symm replay " in line]
    assert shown == [finding["seed_file"] for finding in facts(found)["findings"]]


def test_every_file_of_a_run_is_a_seed_that_it_names(found: Run) -> None:
    named_there = {finding["seed_file"] for finding in facts(found)["findings"]}
    assert content(found.folder).keys() == named_there | {"found.json"}


def test_a_seed_file_holds_the_finding_and_its_size(found: Run, kept: Path) -> None:
    finding, seed = facts(found)["findings"][0], seeds.load(kept)
    assert (seed.findings[0].rule, seed.findings[0].explanation) == (finding["rule"], finding["explanation"])
    assert (seed.scenario.world, len(seed.scenario.steps)) == (finding["world"], finding["steps"])


def test_a_found_seed_is_gone_on_the_right_pool(found: Run, kept: Path) -> None:
    assert symm(found.folder, "replay", str(kept), *SIM, "--pool", "per-group").status == 0


def test_the_same_seed_finds_the_same(place: Callable[[str], Path]) -> None:
    with ThreadPoolExecutor() as threads:
        first, second = map(facts, threads.map(short_hunt, [place("once"), place("again")]))
    same = "draws", "layouts", "groups", "collectives", "windows", "vacuous", "findings"
    assert [second[key] for key in same] == [first[key] for key in same]
    assert first["findings"]


# options


@pytest.fixture(scope="module")
def bounded(place: Callable[[str], Path]) -> Run:
    folder = place("bounded")
    save(Topology("mine", "sglang", {"tp": 2}), folder / "mine.json")
    options = "--minutes", "0.02", "--topology", "mine.json", "--topology", "qwen3-32b-tp4", "--world", "4"
    return symm(folder, "fuzz", *options, *SIM, "--json", "-")


def test_minutes_end_a_run(bounded: Run) -> None:
    assert 0 < bounded.data["seconds"] < 3


def test_topologies_asked_for_are_the_only_ones_drawn(bounded: Run) -> None:
    assert bounded.data["layouts"] == 2


# plug-ins

PLUG_INS = """
import torch
from harness.system.collectives import TritonCollectives
from harness.system.pools.per_group import PerGroup

class Right(PerGroup):
    pass

class RaisesOnOneRank(PerGroup):
    def use(self, group):
        if self._context.rank == 1:
            raise RuntimeError("out of\\nsorts")
        return super().use(group)

class RefusesAll(PerGroup):
    def use(self, group):
        raise torch.OutOfMemoryError("none left")

class Idle(TritonCollectives):
    def all_gather(self, context, output, source):
        pass

class RaisesInKernel(TritonCollectives):
    def all_gather(self, context, output, source):
        raise RuntimeError("out of sorts")
    reduce_scatter = all_gather

class OnlyGathers:
    def all_gather(self, context, output, source):
        pass
"""
BROKEN_MODULES = {
    "torn.py": "def half(:\n",
    "rude.py": "raise RuntimeError('not today')\n",
    "quits.py": "import sys\nsys.exit(0)\n",
}


def test_plug_ins_from_the_working_directory_are_used(tmp_path: Path) -> None:
    """The pool mends the seed's own finding, and the kernel brings another."""
    (tmp_path / "mine.py").write_text(PLUG_INS)
    seed_file(tmp_path)
    options = "--pool", "mine:Right", "--collectives", "mine:Idle"
    run = symm(tmp_path, "replay", "seed.json", *SIM, *options, "--json", "-")
    assert {finding["rule"] for finding in run.data["runs"][0]} == {"wrong-data"}


# replay


@pytest.fixture(scope="module")
def replayed(found: Run, kept: Path) -> tuple[Run, bytes]:
    """A found seed run again, and what was in its file before."""
    before = kept.read_bytes()
    return symm(found.folder, "replay", str(kept), *SIM, "--times", "3", "--json", "-"), before


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
    denied = Scenario(Topology("pair", "sglang", {"tp": 2}), (Deny(1), Allocate("a", "tp", 8)), System("per-group"))
    seeds.save(seeds.Seed(seeds.SCHEMA, denied, (), {}), folder / "seed.json")
    return symm(folder, "replay", "seed.json", *SIM, "--json", "-")


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
    run = symm(tmp_path, "replay", "wrong-owner-found-on-sim", *SIM, "--json", "-")
    assert [finding["rule"] for finding in run.data["runs"][0]] == ["wrong-owner"]


# what needs no ranks


def test_show_prints_the_families_as_json(tmp_path: Path) -> None:
    run = symm(tmp_path, "show", "qwen3-32b-tp2", "--json", "-")
    assert (run.data["schema"], run.data["name"], run.data["world"]) == (1, "qwen3-32b-tp2", 2)
    assert run.data["families"]["tp"] == [[0, 1]]


def test_show_reads_a_file(tmp_path: Path) -> None:
    save(THREE, tmp_path / "three.json")
    run = symm(tmp_path, "show", "three.json", "--json", "-")
    assert run.data["families"] == {"tp": [[0, 1, 2]], "cp": [[0, 1], [2]]}


def test_show_prints_every_group_to_a_person(tmp_path: Path) -> None:
    run = symm(tmp_path, "show", "qwen3-32b-tp4")
    assert [family for family in find("qwen3-32b-tp4").families if family not in run.out] == []


def test_show_writes_json_to_a_file(tmp_path: Path) -> None:
    run = symm(tmp_path, "show", "qwen3-32b-tp2", "--json", "shown.json")
    assert facts(run, "shown.json")["name"] == "qwen3-32b-tp2"


def test_json_to_a_pipe_reaches_its_reader(tmp_path: Path) -> None:
    """As with `--json >(jq .)`: what is no regular file is written to, not replaced."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    symm(tmp_path, "show", "qwen3-32b-tp2", "--json", "pipe")
    received = os.read(reader, 1 << 16)
    os.close(reader)
    assert b'"qwen3-32b-tp2"' in received


def test_show_prints_names_and_notes_as_they_are(tmp_path: Path) -> None:
    save(Topology("a[/b]", "sglang", {"tp": 2}, note="see [/x], [red]not red"), tmp_path / "odd.json")
    run = symm(tmp_path, "show", "odd.json")
    assert (run.status, "a[/b]: 2 ranks" in run.out, "see [/x], [red]not red" in run.out) == (0, True, True)


def test_topologies_lists_every_one_as_json(tmp_path: Path) -> None:
    listed = symm(tmp_path, "topologies", "--json", "-").data["topologies"]
    assert [shown["name"] for shown in listed] == [*named()]


def test_topologies_shows_every_name_whole(tmp_path: Path) -> None:
    """A name that is cut short cannot be given to `--topology`."""
    out = symm(tmp_path, "topologies").out
    assert [name for name in named() if name not in out] == []


def test_doctor_says_which_substrate_a_run_would_get(tmp_path: Path) -> None:
    checks = symm(tmp_path, "doctor", "--json", "-").data["checks"]
    auto = next(check for check in checks if check["what"] == "substrate auto")
    assert (auto["found"], auto["means"]) == ("sim", "no GPU is visible")


def test_doctor_finds_nothing_wrong_with_a_machine_without_gpu(tmp_path: Path) -> None:
    assert symm(tmp_path, "doctor").status == 0


def test_bench_compares_persistent_with_fresh_ranks(tmp_path: Path) -> None:
    run = symm(tmp_path, "bench", "draws", "--draws", "10", "--spawns", "1", "--world", "2", *SIM, "--json", "-")
    assert run.data["ratio"] == run.data["spawned"] / run.data["draw"] > 10


def test_help_exits_with_0(tmp_path: Path) -> None:
    assert symm(tmp_path, "--help").status == 0


# what is wrong: what is asked, and what the sentence must name

WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no command": ((), "command"),
    "an unknown command": (("fuz",), "'fuz'"),
    "an unknown option": (("fuzz", "--drawz", "3"), "--drawz"),
    "no draws": (("fuzz", "--draws", "0"), "--draws"),
    "minutes that are no number": (("fuzz", "--minutes", "nan"), "--minutes"),
    "too large a world": (("fuzz", "--world", "1000"), "--world"),
    "an unknown substrate": (("fuzz", "--substrate", "cuda"), "'cuda'"),
    "nccl without a GPU": (("fuzz", "--substrate", "nccl"), "no GPU"),
    "a topology that is not there": (("fuzz", "--topology", "nowhere.json"), "nowhere.json"),
    "a topology of no name": (("fuzz", "--topology", "llama-900"), "'llama-900'"),
    "a damaged topology": (("fuzz", "--topology", "torn.json"), "torn.json"),
    "a topology that is a folder": (("show", "folder"), "folder"),
    "a topology too large for the world": (("fuzz", "--world", "2", "--topology", "qwen3-32b-tp4"), "'qwen3-32b-tp4'"),
    "an unknown pool": (("fuzz", "--pool", "puddle"), "'puddle'"),
    "a pool that is nearly one": (("fuzz", "--pool", "per-grop"), "did you mean per-group?"),
    "unknown collectives": (("fuzz", "--collectives", "smoke"), "library, triton"),
    "a pool whose module is nowhere": (("fuzz", "--pool", "nowhere:Pool"), "PYTHONPATH"),
    "a pool that its module lacks": (("fuzz", "--pool", "mine:Pool"), "'Pool'"),
    "a pool with a syntax error": (("fuzz", "--pool", "torn:Pool"), "'torn:Pool'"),
    "a pool that raises on import": (("fuzz", "--pool", "rude:Pool"), "'rude:Pool'"),
    "a pool that exits on import": (("fuzz", "--pool", "quits:Pool"), "'quits:Pool'"),
    "a kernel that lacks a method": (("fuzz", "--collectives", "mine:OnlyGathers"), "'mine:OnlyGathers'"),
    "a pool that raises on one rank": (("fuzz", *SHORT, "--pool", "mine:RaisesOnOneRank"), "mine:RaisesOnOneRank"),
    "a kernel that raises": (("fuzz", *SHORT, "--collectives", "mine:RaisesInKernel"), "mine:RaisesInKernel"),
    "seeds in a file": (("fuzz", *SHORT, "--seeds-dir", "torn.json"), "torn.json"),
    "JSON to a folder": (("fuzz", *SHORT, "--json", "folder"), "folder"),
    "JSON to no folder": (("show", "qwen3-32b-tp2", "--json", "nowhere/shown.json"), "nowhere/shown.json"),
    "JSON where nothing can be written": (("doctor", "--json", "/proc/found.json"), "/proc/found.json"),
    "an unknown flow": (("fuzz", "--flow", "sideways"), "'sideways'"),
    "a flow on families that are not there": (
        ("fuzz", "--flow", "all", "--topology", "kimi-k2-vllm-tp8-dcp8"),
        "'kimi-k2-vllm-tp8-dcp8'",
    ),
    "a flow with nothing to do": (("fuzz", "--flow", "cp-prefill", "--topology", "qwen3-32b-tp4"), "'qwen3-32b-tp4'"),
    "a flow in a world of one rank": (("fuzz", "--flow", "all", "--world", "1"), "at least 2"),
    "uneven tokens on one DP rank": (
        ("fuzz", "--flow", "all", "--tokens", "uneven", "--topology", "qwen3-32b-tp4"),
        "with uneven tokens",
    ),
    "a pool that refuses all memory": (("fuzz", *SHORT, "--pool", "mine:RefusesAll"), "nothing was tested"),
    "evidence that there is not": (("fuzz", "--evidence", "luck"), "'luck'"),
    "more nodes than ranks": (("fuzz", "--world", "4", "--nodes", "5"), "5 nodes"),
    "tokens without a flow": (("fuzz", "--tokens", "uneven"), "--flow"),
    "hazards with a flow": (("fuzz", "--flow", "all", "--hazard", "deny"), "--hazard"),
    "implicit sites without tp": (("fuzz", *SHORT, "--sites", "implicit", "--topology", "cp.json"), "'cp only'"),
    "unknown sites": (("fuzz", "--sites", "guessed"), "'guessed'"),
    "a matrix on families that are not there": (("matrix", "--topology", "llama-vllm.json"), "llama-vllm.json"),
    "a matrix of an unknown pool": (("matrix", "--pool", "puddle"), "'puddle'"),
    "too few times to leave a context": (("bench", "registration", "--repeats", "1"), "--repeats"),
    "no seed": (("replay",), "SEED"),
    "a seed that is not there": (("replay", "nowhere.json"), "nowhere.json"),
    "a damaged seed": (("replay", "torn.json"), "torn.json"),
    "a seed of another schema": (("replay", "later.json"), "later.json"),
    "a seed that no rank can be sent": (("replay", "large.json"), "large.json"),
    "too few draws to measure": (("bench", "draws", "--draws", "1"), "--draws"),
}


def furnish(folder: Path) -> None:
    """What the wrong requests name."""
    (folder / "mine.py").write_text(PLUG_INS)
    for name, text in BROKEN_MODULES.items():
        (folder / name).write_text(text)
    (folder / "folder").mkdir()
    save(Topology("cp only", "explicit", families_given={"cp": ((0, 1),)}), folder / "cp.json")
    seed = json.loads(seed_file(folder).read_bytes())
    (folder / "torn.json").write_text(json.dumps(seed)[:200])
    (folder / "later.json").write_text(json.dumps({**seed, "schema": 2}))
    (folder / "large.json").write_text(json.dumps({**seed, "scenario": {**seed["scenario"], "seed": 1 << 70}}))


class Refused(NamedTuple):
    run: Run
    before: dict[str, bytes]


@pytest.fixture(scope="module")
def refused(place: Callable[[str], Path]) -> Iterator[Callable[[str], Refused]]:
    """Gives a wrong request's end. Each runs once, and two side by side: the others while the first is looked at."""

    def ask(name: str) -> Refused:
        folder = place(name)
        furnish(folder)
        before = content(folder)
        return Refused(forked(folder, *WRONG[name][0]), before)

    asked: dict[str, Future[Refused]] = {}

    def answer(name: str) -> Refused:
        for other in sorted(WRONG, key=lambda one: one != name):
            if other not in asked:
                asked[other] = threads.submit(ask, other)
        return asked[name].result()

    with ThreadPoolExecutor(2) as threads:
        yield answer
        threads.shutdown(cancel_futures=True)


def sentence(run: Run) -> str:
    """What a command that was refused says; it must be all of stderr, and one line."""
    lines = run.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("symm: ")
    return lines[0].removeprefix("symm: ")


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_exits_with_2(refused: Callable[[str], Refused], name: str) -> None:
    assert refused(name).run.status == 2


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_answered_by_one_sentence_that_names_it(
    refused: Callable[[str], Refused], name: str
) -> None:
    assert WRONG[name][1] in sentence(refused(name).run)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_leaves_no_process(refused: Callable[[str], Refused], name: str) -> None:
    assert refused(name).run.processes == []


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_leaves_every_file_as_it_was(refused: Callable[[str], Refused], name: str) -> None:
    """Beside them there may be the seed file that the sentence names."""
    run, before = refused(name)
    named = re.findall(r"symm replay (\S+)", run.err)
    assert content(run.folder).keys() - before.keys() == {*named}
    assert {path: data for path, data in content(run.folder).items() if path not in named} == before


@pytest.mark.parametrize("name", ["a pool that raises on one rank", "a kernel that raises"])
def test_the_scenario_in_which_a_plug_in_raised_is_kept_and_raises_again(
    refused: Callable[[str], Refused], name: str
) -> None:
    run, _ = refused(name)
    said, _, command = sentence(run).partition("; replay: symm ")
    again = forked(run.folder, *command.split())
    by_any_rank = re.compile(r"on rank \d+")
    assert (again.status, by_any_rank.sub("", sentence(again))) == (2, by_any_rank.sub("", said))


# what the machine refuses

LIMITS = {
    "addresses": ("ulimit -v 16777216", "64", "of shared memory"),
    "memory": ("ulimit -f 1024", "2", "of shared memory"),
    "files": ("ulimit -n 20", "4", "open files"),
}
"""What the shell forbids, the size of the world, and what the sentence must name."""


@pytest.fixture(scope="module")
def starved(place: Callable[[str], Path]) -> Callable[[str], Run]:
    """Runs a fuzz that may not have enough of something, once."""

    @cache
    def ask(name: str) -> Run:
        limit, world, _ = LIMITS[name]
        return symm(place(name), "fuzz", *SHORT, "--world", world, "--json", "found.json", limit=limit)

    return ask


@pytest.mark.parametrize("name", LIMITS)
def test_a_machine_that_refuses_exits_with_2(starved: Callable[[str], Run], name: str) -> None:
    assert starved(name).status == 2


@pytest.mark.parametrize("name", LIMITS)
def test_a_machine_that_refuses_is_named_in_one_sentence(starved: Callable[[str], Run], name: str) -> None:
    assert LIMITS[name][2] in sentence(starved(name))


@pytest.mark.parametrize("name", LIMITS)
def test_a_machine_that_refuses_leaves_no_process(starved: Callable[[str], Run], name: str) -> None:
    assert starved(name).processes == []


@pytest.mark.parametrize("name", LIMITS)
def test_a_machine_that_refuses_leaves_no_file(starved: Callable[[str], Run], name: str) -> None:
    assert content(starved(name).folder) == {}


# Ctrl-C

MOMENTS: dict[str, tuple[tuple[str, ...], Callable[[dict[str, str], Path], bool], float]] = {
    "while ranks start": ((), lambda mark, folder: len(marked(mark)) > 1, 0.3),
    "while drawing": ((), lambda mark, folder: len(marked(mark)) == 4, 1.0),
    "while shrinking": (("--pool", "shared-at-alloc"), lambda mark, folder: (folder / "symm-seeds").is_dir(), 0.05),
}
"""Options, when the moment has come, and the seconds to let pass then."""


class Interrupted(NamedTuple):
    status: int
    seconds: float
    processes: list[int]
    folder: Path
    said: str


@pytest.fixture(scope="module")
def interrupted(place: Callable[[str], Path]) -> Callable[[str], Interrupted]:
    """Presses Ctrl-C at a moment of a fuzz, once. As a terminal does, the signal goes to every process of it."""

    @cache
    def press(name: str) -> Interrupted:
        options, has_come, pause = MOMENTS[name]
        mark, folder = new_mark(), place(name)
        fuzz = subprocess.Popen(
            ["symm", "fuzz", "--draws", "100000", "--world", "2", *SIM, "--json", "found.json", *options],
            cwd=folder,
            env={**os.environ, **ALONE, **mark},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            while not has_come(mark, folder):
                assert fuzz.poll() is None
                time.sleep(0.01)
            time.sleep(pause)
            began = time.monotonic()
            os.killpg(fuzz.pid, signal.SIGINT)
            _, said = fuzz.communicate(timeout=60)
        finally:
            fuzz.kill()
        return Interrupted(fuzz.returncode, time.monotonic() - began, left(mark, seconds=0), folder, said)

    return press


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_exits_with_130_within_five_seconds(interrupted: Callable[[str], Interrupted], moment: str) -> None:
    run = interrupted(moment)
    assert (run.status, run.seconds < 5) == (130, True)


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_leaves_no_process(interrupted: Callable[[str], Interrupted], moment: str) -> None:
    assert interrupted(moment).processes == []


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_leaves_whole_seed_files_and_what_was_found(
    interrupted: Callable[[str], Interrupted], moment: str
) -> None:
    folder = interrupted(moment).folder
    files = {path for path in folder.rglob("*") if path.is_file()}
    told = {path for path in files if path.name == "found.json"}
    assert [path for path in files - told if path.parent.name != "symm-seeds" or not seeds.load(path).findings] == []
    assert bool(files - told) == (moment == "while shrinking")
    for path in told:
        assert bool(json.loads(path.read_text())["findings"]) == (moment == "while shrinking")
    assert bool(told) == (moment != "while ranks start")


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_is_told_in_two_words(interrupted: Callable[[str], Interrupted], moment: str) -> None:
    assert interrupted(moment).said == "symm: interrupted\n"
