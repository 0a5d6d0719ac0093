"""A plug-in that raises: found, kept, replayed, shown with its own lines, and debugged. One of the wrong shape is
refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.campaign import seeds
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate
from harness.scenario.system import System
from harness.scenario.topology import Topology
from tests.tools.commands import Run, forked
from tests.tools.folders import SIM, facts, sentence
from tests.tools.terminals import typed

PAIR = Topology("pair", "sglang", {"tp": 2})
GATHER = Allocate("a", "tp", 512), AllGather("tp", View("a"), 200, via="kernel")
MINE = """
from contextlib import contextmanager
import torch
from harness.system.collectives import TritonCollectives
from harness.system.pools.per_group import PerGroup

class AssertsSize(TritonCollectives):
    def all_gather(self, context, output, source):
        print("\\x1b[31mon rank", context.rank)
        self.check(source)
        super().all_gather(context, output, source)
    def check(self, source):
        assert source.numel() <= 100, "the workspace is full"

class TwoAsserts(TritonCollectives):
    def all_gather(self, context, output, source):
        assert source.numel() <= 100
        assert source.dtype != torch.int32
        super().all_gather(context, output, source)

class OnRankOne(PerGroup):
    def use(self, group):
        if self._context.rank == 1:
            raise RuntimeError("out of\\nsorts")
        return super().use(group)

class NoYield(PerGroup):
    @contextmanager
    def use(self, group):
        if False:
            yield

class TooFew(PerGroup):
    @contextmanager
    def use(self):
        yield
"""
BY_KERNEL = "--collectives", "mine:AssertsSize"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with the plug-ins and a seed that raises."""
    (tmp_path / "mine.py").write_text(MINE)
    kept = Scenario(PAIR, GATHER, System(collectives="mine:AssertsSize"))
    seeds.save(seeds.Seed(seeds.SCHEMA, kept, (), {}), tmp_path / "seed.json")
    return tmp_path


@pytest.fixture(scope="module")
def found(place: Callable[[str], Path]) -> Run:
    folder = place("found")
    (folder / "mine.py").write_text(MINE)
    options = "--world", "2", "--draws", "12", "--shrink-seconds", "6", "--json", "found.json"
    return forked(folder, "fuzz", *SIM, *BY_KERNEL, *options)


def test_what_raises_is_a_finding(found: Run) -> None:
    assert (found.status, [finding["rule"] for finding in facts(found)["findings"]]) == (1, ["raised"])


def test_what_raises_is_shrunk_to_its_call(found: Run) -> None:
    (finding,) = facts(found)["findings"]
    assert (finding["world"], finding["steps"] <= 4) == (2, True)


def test_what_raises_is_named_with_the_plug_ins_own_line(found: Run) -> None:
    line = 1 + MINE.splitlines().index('        assert source.numel() <= 100, "the workspace is full"')
    (finding,) = facts(found)["findings"]
    assert (
        f"raised AssertionError: the workspace is full in check (mine.py:{line}) on ranks 0, 1"
        in finding["explanation"]
    )


def test_one_exception_leaves_one_seed_file(found: Run) -> None:
    (finding,) = facts(found)["findings"]
    assert [str(path.relative_to(found.folder)) for path in found.folder.glob("symm-seeds/*")] == [finding["seed_file"]]


def test_what_raises_shows_neither_its_traceback_nor_what_it_printed_unless_asked(found: Run) -> None:
    assert ("Traceback" in found.out, "on rank" in found.out.replace("on ranks", "")) == (False, False)


def test_a_run_on_the_same_seeds_leaves_no_further_file(found: Run) -> None:
    before = {*found.folder.glob("symm-seeds/*")}
    (finding,) = facts(found)["findings"]
    assert forked(found.folder, "replay", finding["seed_file"], *SIM, *BY_KERNEL).status == 1
    assert {*found.folder.glob("symm-seeds/*")} == before


def test_two_exceptions_are_two_findings_with_a_file_each(mine: Path) -> None:
    options = "--world", "2", "--draws", "60", "--shrink-seconds", "1", "--json", "found.json"
    run = forked(mine, "fuzz", *SIM, "--collectives", "mine:TwoAsserts", *options)
    explained = [finding["explanation"] for finding in facts(run)["findings"]]
    assert sum("source.numel() <= 100" in text for text in explained) == 1
    assert sum("torch.int32" in text for text in explained) == 1
    assert len([*mine.glob("symm-seeds/raised-*.json")]) == 2


def test_a_replay_shows_all_of_the_traceback_if_asked(mine: Path) -> None:
    run = forked(mine, "replay", "seed.json", *SIM, *BY_KERNEL, "--traceback")
    assert run.status == 1
    assert ["Traceback (most recent call last):" in run.out, "self.check(source)" in run.out] == [True, True]


def test_a_replay_shows_what_each_rank_printed_if_asked_and_no_terminal_obeys_it(mine: Path) -> None:
    run = forked(mine, "replay", "seed.json", *SIM, *BY_KERNEL, "--show-output")
    assert [f"\\x1b[31mon rank {rank}" in run.out for rank in (0, 1)] == [True, True]
    assert "\x1b" not in run.out


def test_a_fuzz_shows_both_if_asked(mine: Path) -> None:
    options = "--world", "2", "--draws", "8", "--shrink-seconds", "0", "--traceback", "--show-output"
    run = forked(mine, "fuzz", *SIM, *BY_KERNEL, *options)
    assert ["Traceback (most" in run.out, "rank 0 printed:" in run.out, "\x1b" in run.out] == [True, True, False]


def test_two_worlds_in_which_a_plug_in_raises_alike_agree(mine: Path) -> None:
    options = "--world", "2", "--draws", "3", "--pool", "mine:OnRankOne", "--json", "-"
    run = forked(mine, "agree", "--against", "sim", *options)
    assert (run.status, run.data["draws"], run.data["disagreements"]) == (0, 3, [])


def test_a_cell_of_the_matrix_counts_what_raises_as_any_rule(mine: Path) -> None:
    options = "--draws", "2", "--sites", "explicit", "--tokens", "padded", "--topology", "qwen3-32b-tp4", "--json", "-"
    run = forked(mine, "matrix", *SIM, "--pool", "mine:OnRankOne", "--minutes", "0.1", *options)
    assert (run.status, run.data["cells"][0]["rules"]) == (1, ["raised"])


# the shape


@pytest.mark.parametrize(
    ("pool", "text"),
    [
        ("NoYield", "pool 'mine:NoYield' has a use() that does not yield (use, mine.py:"),
        ("TooFew", "pool 'mine:TooFew' cannot be called as use(group): too many positional arguments (use, mine.py:"),
    ],
)
def test_a_mistake_in_the_shape_of_a_pool_is_one_sentence_with_its_place(mine: Path, pool: str, text: str) -> None:
    run = forked(mine, "fuzz", *SIM, "--world", "2", "--draws", "2", "--pool", f"mine:{pool}")
    assert (run.status, sentence(run).startswith(text)) == (2, True)


# the debugger


def debugged(folder: Path, *lines: str, rank: int = 0, pause: float = 0.0) -> tuple[int, str]:
    command = "symm", "replay", "seed.json", *SIM, *BY_KERNEL, "--deadline", "1", "--pdb", str(rank)
    return typed(folder, command, lines, "(Pdb)", pause)


def test_a_rank_is_debugged_where_the_system_raises_and_the_deadline_waits(mine: Path) -> None:
    status, shown = debugged(mine, "p source.numel() * 1000", "up", "p context.rank", "q", rank=1, pause=1.2)
    assert status == 1
    assert ["-> assert source" in shown, "\n200000\n" in shown, "\n1\n" in shown] == [True, True, True]
    assert "on ranks 0, 1 at step 1 (all_gather)" in " ".join(shown.replace("│", " ").split())


def test_the_end_of_what_is_typed_ends_a_debugger(mine: Path) -> None:
    assert debugged(mine, "\x04")[0] == 1


def test_a_rank_that_raises_nothing_is_said_to_leave_nothing_to_debug(mine: Path) -> None:
    seed = seeds.load(mine / "seed.json")
    right = Scenario(PAIR, GATHER[:1], seed.scenario.system)
    seeds.save(seeds.Seed(seeds.SCHEMA, right, (), {}), mine / "seed.json")
    status, shown = debugged(mine)
    assert (status, "rank 0 raised nothing" in shown) == (0, True)


@pytest.mark.parametrize(("rank", "text"), [("0", "stdin is none"), ("7", "the scenario has ranks 0 to 1")])
def test_a_debugger_without_a_terminal_or_a_rank_is_refused(mine: Path, rank: str, text: str) -> None:
    run = forked(mine, "replay", "seed.json", *SIM, *BY_KERNEL, "--pdb", rank)
    assert (run.status, text in sentence(run)) == (2, True)
