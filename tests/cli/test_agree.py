"""`symm agree`, tried on two simulations and on rewritten scenarios: its exit status, what it writes and shows, and
what Ctrl-C leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.campaign import seeds
from harness.studies.agree.facts import FACTS
from harness.studies.agree.transformations.catalogue import TRANSFORMATIONS
from tests.tools.commands import ALONE, Run, forked

COMPARE = ("agree", "--against", "sim", "--world", "2")
REWRITE = ("agree", "--metamorphic", "--substrate", "sim", "--world", "3")
KNOWS_RANK_0 = """
from harness.system.planted.sound import Sound

class KnowsRank0(Sound):
    \"\"\"Registers for groups that begin with rank 0.\"\"\"
    def may_register(self, group):
        return group.ranks[0] == 0
"""
TWO_FACED = """
import os
from harness.system.pools.per_group import PerGroup

class TwoFaced(PerGroup):
    \"\"\"Registers nothing in any world but the first that ran it; ranks of a world map one file of memory.\"\"\"
    def __init__(self, context):
        super().__init__(context)
        with open("/proc/self/maps") as maps:  # address, rights, offset, device, inode, name (proc(5))
            world = next(line.split()[4] for line in maps if "/memfd:symm-harness" in line)
        try:
            os.symlink(world, "first")
        except FileExistsError:
            pass
        if os.readlink("first") != world:
            self.use = lambda group: context.pool("none").use()
"""


@pytest.fixture(scope="module")
def agreed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return forked(tmp_path_factory.mktemp("agreed"), *COMPARE, "--draws", "8", "--json", "-")


@pytest.fixture(scope="module")
def disagreed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same scenarios on a pool that does not do the same in both worlds."""
    folder = tmp_path_factory.mktemp("disagreed")
    (folder / "mine.py").write_text(TWO_FACED)
    return forked(folder, *COMPARE, "--draws", "6", "--pool", "mine:TwoFaced", "--json", "found.json")


def compared(run: Run) -> Any:
    return msgspec.json.decode((run.folder / "found.json").read_bytes())


def test_agreement_exits_with_0(agreed: Run) -> None:
    assert agreed.status == 0, agreed.err


def test_a_comparison_says_what_is_promised(agreed: Run) -> None:
    promised = {"schema", "draws", "compared", "disagreements", "environment", "accounted", "left", "seed"}
    assert agreed.data.keys() == promised
    assert (agreed.data["schema"], agreed.data["draws"], agreed.data["disagreements"]) == (1, 8, [])


def test_a_comparison_counts_every_fact(agreed: Run) -> None:
    assert agreed.data["compared"].keys() == FACTS.keys()
    assert min(agreed.data["compared"].values()) > 0


def test_the_same_seed_compares_the_same(agreed: Run, tmp_path: Path) -> None:
    again = forked(tmp_path, *COMPARE, "--draws", "8", "--json", "-")
    assert again.data == agreed.data


def test_a_disagreement_exits_with_1(disagreed: Run) -> None:
    assert disagreed.status == 1, disagreed.err


def test_a_disagreement_holds_both_sides_and_a_seed_file(disagreed: Run) -> None:
    found = {each["fact"]: each for each in compared(disagreed)["disagreements"]}
    assert found["registrations"].keys() == {"fact", "sim", "nccl", "seed_file"}
    assert set(found["registrations"]["nccl"].values()) == {"nothing"}
    assert seeds.load(disagreed.folder / found["registrations"]["seed_file"]).scenario.world <= 2


def test_a_disagreement_is_shown_with_its_program_and_how_to_replay_it(disagreed: Run) -> None:
    for each in compared(disagreed)["disagreements"]:
        assert f"symm replay {each['seed_file']} --pool mine:TwoFaced --substrate sim" in disagreed.out
    assert "allocate buffer=" in disagreed.out


def test_ctrl_c_keeps_what_was_found_and_writes_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TWO_FACED)
    options = ("--draws", "100000", "--pool", "mine:TwoFaced", "--json", "found.json")
    running = subprocess.Popen(
        ["symm", *COMPARE, *options],
        cwd=tmp_path,
        env={**os.environ, **ALONE},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not list(tmp_path.glob("symm-seeds/disagree-findings-*.json")):  # the last of the first draw's
            assert running.poll() is None
            time.sleep(0.01)
        time.sleep(0.1)
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(timeout=60) == 130
    finally:
        running.kill()
    found = msgspec.json.decode((tmp_path / "found.json").read_bytes())["disagreements"]
    assert {each["seed_file"] for each in found} == {f"symm-seeds/{path.name}" for path in tmp_path.glob("*/*.json")}


def test_a_comparison_of_an_unknown_pool_is_refused(tmp_path: Path) -> None:
    run = forked(tmp_path, *COMPARE, "--pool", "puddle")
    assert (run.status, "'puddle'" in run.err) == (2, True)


def test_a_comparison_with_nccl_needs_a_gpu(tmp_path: Path) -> None:
    run = forked(tmp_path, "agree", "--draws", "1")
    assert (run.status, run.err.strip().splitlines()) == (2, ["symm: substrate nccl: no GPU is visible"])


# one world, on scenarios as they are and rewritten


@pytest.fixture(scope="module")
def rewritten(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return forked(tmp_path_factory.mktemp("rewritten"), *REWRITE, "--draws", "6", "--json", "-")


@pytest.fixture(scope="module")
def dependent(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A pool that goes by the number of a rank."""
    folder = tmp_path_factory.mktemp("dependent")
    (folder / "mine.py").write_text(KNOWS_RANK_0)
    return forked(folder, *REWRITE, "--draws", "8", "--pool", "mine:KnowsRank0", "--json", "found.json")


def test_rewritten_scenarios_of_the_harness_agree(rewritten: Run) -> None:
    assert rewritten.status == 0, rewritten.err
    assert (rewritten.data["draws"], rewritten.data["disagreements"]) == (6, [])


def test_what_was_rewritten_is_counted_by_its_name(rewritten: Run) -> None:
    assert rewritten.data["compared"].keys() == TRANSFORMATIONS.keys()
    assert sum(rewritten.data["compared"].values()) == 6


def test_a_pool_that_goes_by_rank_numbers_exits_with_1(dependent: Run) -> None:
    assert dependent.status == 1, dependent.err
    assert [each["fact"] for each in compared(dependent)["disagreements"]] == ["renumber-ranks"]


def test_both_scenarios_are_kept_and_shown(dependent: Run) -> None:
    (found,) = compared(dependent)["disagreements"]
    assert found.keys() == {"fact", "drawn", "rewritten", "seed_file", "rewritten_seed_file"}
    for file in (found["seed_file"], found["rewritten_seed_file"]):
        assert seeds.load(dependent.folder / file).scenario.world <= 3
        assert f"symm replay {file} --pool mine:KnowsRank0 --substrate sim" in dependent.out


def test_a_substrate_is_for_rewritten_scenarios_alone(tmp_path: Path) -> None:
    run = forked(tmp_path, *COMPARE, "--substrate", "sim")
    assert (run.status, "--substrate goes with --metamorphic" in run.err) == (2, True)
