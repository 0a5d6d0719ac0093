"""The commands that run many campaigns: the verdict matrix and the benches."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.campaign import seeds
from harness.scenario.system import POOLS
from harness.scenario.topology import Topology, save
from harness.text import counted
from tests.tools.commands import Run, forked

SIM = ("--substrate", "sim")
SMALL = ("--topology", "four.json", "--pool", "shared-at-alloc", "--pool", "deferred")
MEASURED = ("qwen3-32b-tp4", "deepseek-v32-prefill-cp2-dpa2")
FOUR = Topology("four", "sglang", {"tp": 4, "attn_dp": 2})


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two pools on one topology, six draws a cell."""
    folder = tmp_path_factory.mktemp("matrix")
    save(FOUR, folder / "four.json")
    return forked(folder, "matrix", *SMALL, *SIM, "--draws", "6", "--minutes", "0.5", "--json", "found.json")


def cells(run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = msgspec.json.decode((run.folder / "found.json").read_bytes())["cells"]
    return found


def test_a_matrix_with_broken_cells_exits_with_1(verdicts: Run) -> None:
    assert verdicts.status == 1, verdicts.err


def test_a_matrix_has_a_cell_for_every_combination(verdicts: Run) -> None:
    shown = {(cell["sites"], cell["tokens"], cell["pool"]) for cell in cells(verdicts)}
    assert len(shown) == len(cells(verdicts)) == 8


def test_a_cell_says_what_is_promised(verdicts: Run) -> None:
    promised = {"sites", "pool", "tokens", "topology", "draws", "rules", "draws_to_find", "seed_file"}
    assert [promised - cell.keys() for cell in cells(verdicts)] == [set()] * 8


def test_explicit_sites_with_deferred_are_clean(verdicts: Run) -> None:
    good = [cell for cell in cells(verdicts) if cell["sites"] == "explicit" and cell["pool"] == "deferred"]
    assert [(cell["rules"], cell["seed_file"]) for cell in good] == [([], None)] * 2


def test_implicit_sites_break_ownership_with_every_pool(verdicts: Run) -> None:
    broken = [(cell["pool"], cell["tokens"]) for cell in cells(verdicts) if "wrong-owner" in rules_of_implicit(cell)]
    assert sorted(broken) == sorted(product(("deferred", "shared-at-alloc"), ("padded", "uneven")))


def rules_of_implicit(cell: dict[str, Any]) -> list[str]:
    return cell["rules"] if cell["sites"] == "implicit" else []


def test_a_broken_cell_names_a_seed_file_that_holds_its_system(verdicts: Run) -> None:
    broken = [cell for cell in cells(verdicts) if cell["rules"]]
    kept = [seeds.load(verdicts.folder / cell["seed_file"]).scenario.system for cell in broken]
    assert [(system.pool, system.sites) for system in kept] == [(cell["pool"], cell["sites"]) for cell in broken] != []


def test_the_table_shows_every_verdict(verdicts: Run) -> None:
    rows: list[list[str]] = []
    for line in verdicts.out.splitlines():
        if line.startswith("│"):
            *system, text = (field.strip() for field in line.strip("│").split("│"))
            rows += [[*system, ""]] if system[0] else []  # a long verdict goes on in the lines below
            rows[-1][-1] += f"{text} "
    assert [row[:3] for row in rows] == [[cell["sites"], cell["tokens"], cell["pool"]] for cell in cells(verdicts)]
    pairs = zip(rows, cells(verdicts), strict=True)
    assert [words for row, cell in pairs for words in opening_words(cell) if words not in row[3]] == []


def opening_words(cell: dict[str, Any]) -> list[str]:
    """How the table begins each rule of a cell, or its one verdict."""
    if not cell["rules"]:
        return [f"clean in {counted(cell['draws'] - cell['vacuous'], 'draw')}"]
    return [f"{found['rule']} after {counted(found['draws_to_find'], 'draw')}" for found in cell["findings"]]


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    only = [option for name in MEASURED for option in ("--topology", name)]
    run = forked(
        tmp_path_factory.mktemp("costs"), "bench", "registration", *SIM, "--repeats", "5", *only, "--json", "-"
    )
    assert run.status == 0, run.err
    return run.data


def test_every_design_is_left_at_every_number_of_segments(costs: Any) -> None:
    measured = {(row["pool"], row["segments"]) for row in costs["leaving"]}
    assert measured == {(pool, segments) for pool in POOLS for segments in (1, 16, 64, 256)}


def test_costs_are_ratios_to_deferred(costs: Any) -> None:
    assert {row["times"] for row in costs["leaving"] if row["pool"] == "deferred"} == {1.0}


def test_every_design_holds_memory_on_every_topology_asked_for(costs: Any) -> None:
    held = {(row["topology"], row["pool"]): row["most"] for row in costs["held"]}
    assert {*held} == {(name, pool) for name in MEASURED for pool in POOLS}
    assert min(held.values()) > 0


def test_a_pool_for_each_group_holds_no_less_than_a_shared_one(costs: Any) -> None:
    held = {(row["topology"], row["pool"]): row["most"] for row in costs["held"]}
    assert [name for name in MEASURED if held[name, "per-group"] < held[name, "shared-at-exit"]] == []


FUZZED: dict[str, tuple[tuple[str, ...], int]] = {
    "flows with the default system": (("--flow", "all", "--draws", "12", "--world", "4"), 0),
    "one flow": (("--flow", "moe-scatter", "--draws", "6", "--world", "4"), 0),
    "flows of uneven tokens": (("--flow", "all", "--tokens", "uneven", "--draws", "12", "--world", "4"), 0),
    "implicit sites": (
        (
            *("--flow", "all", "--sites", "implicit", "--draws", "12", "--seed", "1"),
            *("--collectives", "library", "--shrink-seconds", "2"),
        ),
        1,
    ),
    "implicit sites in free programs": (
        ("--sites", "implicit", "--draws", "20", "--world", "4", "--shrink-seconds", "2"),
        1,
    ),
}


@pytest.fixture(params=FUZZED)
def fuzzed(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Run, int]:
    options, status = FUZZED[request.param]
    return forked(tmp_path, "fuzz", *options, *SIM, "--json", "-"), status


def test_fuzzing_flows_and_sites_finds_what_is_wrong_and_no_more(fuzzed: tuple[Run, int]) -> None:
    run, status = fuzzed
    assert run.status == status, run.err
    assert [finding["rule"] for finding in run.data["findings"]][:1] == ["wrong-owner"] * status
    assert ("sites implicit" in " ".join(run.err.replace("│", " ").split())) == bool(status)


@pytest.fixture(scope="module")
def seed_of_implicit_sites(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    folder = tmp_path_factory.mktemp("implicit")
    run = forked(
        folder,
        "fuzz",
        "--sites",
        "implicit",
        "--draws",
        "16",
        "--world",
        "2",
        *SIM,
        "--shrink-seconds",
        "2",
        "--json",
        "-",
    )
    return lambda: folder / run.data["findings"][0]["seed_file"]


@pytest.mark.parametrize(("sites", "status"), [("implicit", 1), ("explicit", 0)])
def test_replay_takes_other_sites(
    sites: str, status: int, seed_of_implicit_sites: Callable[[], Path], tmp_path: Path
) -> None:
    assert forked(tmp_path, "replay", str(seed_of_implicit_sites()), *SIM, "--sites", sites).status == status


def test_bench_compares_persistent_with_fresh_ranks(tmp_path: Path) -> None:
    run = forked(tmp_path, "bench", "draws", "--draws", "10", "--spawns", "1", "--world", "2", *SIM, "--json", "-")
    assert run.data["ratio"] == run.data["spawned"] / run.data["draw"] > 0
    assert (run.data["interrupted"], "10 draws on these ranks" in run.err.splitlines()) == (False, True)
