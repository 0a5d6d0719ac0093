"""The command line: what needs no ranks, and one sentence for everything that is wrong.

Commands run as processes of their own in a folder of their own. What several tests look at is run once.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.scenario.topology import Topology, find, named, save
from tests.tools.commands import Run, forked, symm
from tests.tools.folders import BROKEN_MODULES, PLUG_INS, SIM, THREE, content, facts, seed_file, sentence

SHORT = ("--draws", "5", "--world", "2", *SIM)
# what needs no ranks


def test_show_prints_the_families_as_json(tmp_path: Path) -> None:
    run = forked(tmp_path, "show", "qwen3-32b-tp2", "--json", "-")
    assert (run.data["schema"], run.data["name"], run.data["world"]) == (1, "qwen3-32b-tp2", 2)
    assert run.data["families"]["tp"] == [[0, 1]]


def test_show_reads_a_file(tmp_path: Path) -> None:
    save(THREE, tmp_path / "three.json")
    run = forked(tmp_path, "show", "three.json", "--json", "-")
    assert run.data["families"] == {"tp": [[0, 1, 2]], "cp": [[0, 1], [2]]}


def test_show_prints_every_group_to_a_person(tmp_path: Path) -> None:
    run = forked(tmp_path, "show", "qwen3-32b-tp4")
    assert [family for family in find("qwen3-32b-tp4").families if family not in run.out] == []


def test_show_writes_json_to_a_file(tmp_path: Path) -> None:
    run = forked(tmp_path, "show", "qwen3-32b-tp2", "--json", "shown.json")
    assert facts(run, "shown.json")["name"] == "qwen3-32b-tp2"


def test_json_to_a_pipe_reaches_its_reader(tmp_path: Path) -> None:
    """As with `--json >(jq .)`: what is no regular file is written to, not replaced."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    forked(tmp_path, "show", "qwen3-32b-tp2", "--json", "pipe")
    received = os.read(reader, 1 << 16)
    os.close(reader)
    assert b'"qwen3-32b-tp2"' in received


def test_show_prints_names_and_notes_as_they_are(tmp_path: Path) -> None:
    save(Topology("a[/b]", "sglang", {"tp": 2}, note="see [/x], [red]not red"), tmp_path / "odd.json")
    run = forked(tmp_path, "show", "odd.json")
    assert (run.status, "a[/b]: 2 ranks" in run.out, "see [/x], [red]not red" in run.out) == (0, True, True)


def test_topologies_lists_every_one_as_json(tmp_path: Path) -> None:
    listed = forked(tmp_path, "topologies", "--json", "-").data["topologies"]
    assert [shown["name"] for shown in listed] == [*named()]


def test_topologies_shows_every_name_whole(tmp_path: Path) -> None:
    """A name that is cut short cannot be given to `--topology`."""
    out = forked(tmp_path, "topologies").out
    assert [name for name in named() if name not in out] == []


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
    "seeds in a file": (("fuzz", *SHORT, "--seeds-dir", "torn.json"), "torn.json"),
    "JSON to a folder": (("fuzz", *SHORT, "--json", "folder"), "folder"),
    "JSON to no folder": (("show", "qwen3-32b-tp2", "--json", "nowhere/shown.json"), "nowhere/shown.json"),
    "JSON onto the topology that is shown": (("show", "cp.json", "--json", "cp.json"), "cp.json"),
    "JSON onto the seed that is replayed": (("replay", "later.json", "--json", "./later.json"), "./later.json"),
    "JSON onto a topology that is drawn": (("fuzz", "--topology", "cp.json", "--json", "cp.json"), "cp.json"),
    "JSON to links in a circle": (("doctor", "--json", "circle"), "circle"),
    "seeds in links in a circle": (("fuzz", *SHORT, "--seeds-dir", "circle"), "circle"),
    "JSON where nothing can be written": (("doctor", "--json", "/proc/found.json"), "/proc/found.json"),
    "an unknown flow": (("fuzz", "--flow", "sideways"), "'sideways'"),
    "a flow on families that are not there": (
        ("fuzz", "--flow", "all", "--topology", "deepseek-v3-titan-dp2-cp2-tp2-ep4"),
        "'deepseek-v3-titan-dp2-cp2-tp2-ep4'",
    ),
    "a flow with nothing to do": (("fuzz", "--flow", "cp-prefill", "--topology", "qwen3-32b-tp4"), "'qwen3-32b-tp4'"),
    "a flow in a world of one rank": (("fuzz", "--flow", "all", "--world", "1"), "at least 2"),
    "uneven tokens on one DP rank": (
        ("fuzz", "--flow", "all", "--tokens", "uneven", "--topology", "qwen3-32b-tp4"),
        "with uneven tokens",
    ),
    "a pool that refuses all memory": (("fuzz", *SHORT, "--pool", "mine:RefusesAll"), "nothing was tested"),
    "a kernel that refuses every call": (("fuzz", *SHORT, "--collectives", "mine:RefusesEveryCall"), "ran 0 of "),
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
    (folder / "circle").symlink_to("circle")
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
