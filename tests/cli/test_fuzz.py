"""`symm fuzz`: what it writes and shows of a clean run and of a faulty pool, its options, and what Ctrl-C leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from harness.campaign import seeds
from harness.scenario.system import System
from harness.scenario.topology import Topology, save
from tests.tools.commands import ALONE, Run, forked, forked_with_a_fresh_seed, symm
from tests.tools.folders import SIM, content, facts
from tests.tools.processes import left, marked, new_mark

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


def test_a_run_in_which_nothing_is_left_notes_nothing(clean: Run) -> None:
    assert (clean.data["left"], "left something" in clean.err) == ([], False)


def test_what_draws_left_in_their_process_is_a_note_and_no_finding(
    place: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    pool = "tests.tools.stateful:umask"
    run = symm(place("left"), "fuzz", "--draws", "3", "--world", "2", "--pool", pool, "--json", "-")
    (left,) = run.data["left"]
    assert (run.status, left["pool"], left["what"], left["new"], left["draws"]) == (0, pool, "umask", "0o077", 3)
    assert f"pool {pool}, collectives triton: umask on rank {left['rank']}" in run.err


# a faulty pool

NESTED = Topology("nested", "explicit", families_given={"all": ((0, 1, 2, 3),), "near": ((0, 1), (2, 3))})


def hunt(folder: Path) -> Run:
    """One of a pool for all groups where groups lie in one another: a third of such draws break `wrong-owner`."""
    topology = folder.with_suffix(".json")
    save(NESTED, topology)
    wrong = "--pool", "shared-at-alloc", "--world", "4", "--draws", "24", "--shrink-seconds", "20"
    drawn = "--topology", str(topology)
    return forked(folder, "fuzz", *wrong, *drawn, *SIM, "--seeds-dir", "kept", "--json", "found.json")


def short_hunt(folder: Path) -> Run:
    """One with a finding that is soon made small."""
    wrong = "--pool", "harness.system.planted.pools:KeepsATensor", "--world", "2", "--draws", "8"
    return forked(folder, "fuzz", *wrong, *SIM, "--json", "found.json")


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
    assert forked(found.folder, "replay", str(kept), *SIM, "--pool", "per-group").status == 0


def test_the_same_seed_finds_the_same(place: Callable[[str], Path]) -> None:
    with ThreadPoolExecutor() as threads:
        first, second = map(facts, threads.map(short_hunt, [place("once"), place("again")]))
    same = "draws", "layouts", "groups", "collectives", "windows", "vacuous", "findings"
    assert [second[key] for key in same] == [first[key] for key in same]
    assert first["findings"]


# nights


WRONG = "--pool", "harness.system.planted.pools:KeepsATensor", "--world", "2", "--draws", "8"


@pytest.fixture(scope="module")
def nights(place: Callable[[str], Path]) -> tuple[Run, Run]:
    """Two nights on one bug, of fresh seeds. The second one knows what the first has kept."""
    night = "fuzz", *WRONG, *SIM, "--seeds-dir", "kept", "--known", "kept", "--json"
    folder = place("nights")
    first = forked_with_a_fresh_seed(folder, *night, "first.json")
    return first, forked_with_a_fresh_seed(folder, *night, "second.json")


def told(run: Run, file: str) -> tuple[list[str], list[str]]:
    found = json.loads((run.folder / file).read_text())["findings"]
    return [each["status"] for each in found], [each["signature"] for each in found]


def test_a_night_that_finds_only_what_is_known_is_no_failure(nights: tuple[Run, Run]) -> None:
    first, second = nights
    (new, signatures), (known, again) = told(first, "first.json"), told(second, "second.json")
    assert (first.status, new, second.status, known) == (1, ["new"], 0, ["known"])
    assert signatures == again
    assert "known findings alone are no failure, and the exit status is 0" in second.out


def test_over_nights_a_signature_has_one_file(nights: tuple[Run, Run]) -> None:
    (path,) = (nights[1].folder / "kept").iterdir()
    assert seeds.load(path).signature == told(nights[0], "first.json")[1][0]


def test_each_night_has_a_seed_of_its_own_that_repeats_it(nights: tuple[Run, Run]) -> None:
    first, second = (facts["seed"] for facts in map(json.loads, (read(nights[0], "first"), read(nights[1], "second"))))
    assert first != second
    assert f"seed {second}: --seed {second} draws the same" in nights[1].out.splitlines()[:3]


def read(run: Run, name: str) -> str:
    return (run.folder / f"{name}.json").read_text()


def test_a_night_of_known_findings_is_whole_in_its_folder_and_merges_as_no_failure(nights: tuple[Run, Run]) -> None:
    folder = nights[0].folder
    run = forked(folder, "fuzz", *WRONG, *SIM, "--known", "kept", "--run", "whole")
    merged = forked(folder, "merge", "whole", "--into", "joined")
    assert (run.status, merged.status, merged.err) == (0, 0, "")
    assert "replay: symm replay joined/known/" in merged.out


def test_a_known_finding_that_no_longer_fails_is_gone(nights: tuple[Run, Run]) -> None:
    folder = nights[0].folder
    (path,) = (folder / "kept").iterdir()
    seed = seeds.load(path)
    gone = msgspec.structs.replace(seed.scenario, system=System("per-group"))
    seeds.save(msgspec.structs.replace(seed, scenario=gone), folder / "gone" / "leak.json")
    run = forked(folder, "fuzz", "--draws", "2", "--world", "2", *SIM, "--known", "gone", "--json", "-")
    assert [(each["rule"], each["seed_file"]) for each in run.data["gone"]] == [("leak", "gone/leak.json")]
    assert (run.status, run.data["findings"]) == (0, [])


# options


@pytest.fixture(scope="module")
def narrowed(place: Callable[[str], Path]) -> Run:
    folder = place("narrowed")
    save(Topology("mine", "sglang", {"tp": 2}), folder / "mine.json")
    options = "--draws", "24", "--topology", "mine.json", "--topology", "qwen3-32b-tp4", "--world", "4"
    return forked(folder, "fuzz", *options, *SIM, "--json", "-")


def test_minutes_end_a_run(tmp_path: Path) -> None:
    """Before the number of draws that one without them makes."""
    run = forked(tmp_path, "fuzz", "--minutes", "0.005", "--world", "2", *SIM, "--json", "-")
    assert (run.status, run.data["draws"] < 300) == (0, True)


def test_topologies_asked_for_are_the_only_ones_drawn(narrowed: Run) -> None:
    assert narrowed.data["layouts"] == 2


# Ctrl-C

MOMENTS: dict[str, tuple[tuple[str, ...], Callable[[dict[str, str], Path], bool], float]] = {
    "while ranks start": ((), lambda mark, folder: len(marked(mark)) > 1, 0.0),
    "while drawing": ((), lambda mark, folder: "substrate sim" in shown(folder).read_text(), 0.3),
    "while shrinking": (("--pool", "shared-at-alloc"), lambda mark, folder: (folder / "symm-seeds").is_dir(), 0.05),
}
"""Options, when the moment has come, and the seconds to let pass then."""


class Interrupted(NamedTuple):
    status: int
    processes: list[int]
    folder: Path
    err: str


def shown(folder: Path) -> Path:
    """What a command prints, beside its folder."""
    return folder.with_suffix(".out")


@pytest.fixture(scope="module")
def interrupted(place: Callable[[str], Path]) -> Callable[[str], Interrupted]:
    """Presses Ctrl-C at a moment of a fuzz, once. As a terminal does, the signal goes to every process of it."""

    @cache
    def press(name: str) -> Interrupted:
        options, has_come, pause = MOMENTS[name]
        mark, folder = new_mark(), place(name)
        shown(folder).touch()
        fuzz = subprocess.Popen(
            ["symm", "fuzz", "--draws", "100000", "--world", "2", *SIM, "--json", "found.json", *options],
            cwd=folder,
            env={**os.environ, **ALONE, **mark},
            stdout=shown(folder).open("w"),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            while not has_come(mark, folder):
                assert fuzz.poll() is None
                time.sleep(0.01)
            time.sleep(pause)
            os.killpg(fuzz.pid, signal.SIGINT)
            _, err = fuzz.communicate(timeout=60)
        finally:
            fuzz.kill()
        return Interrupted(fuzz.returncode, left(mark, seconds=0), folder, err)

    return press


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_exits_with_130(interrupted: Callable[[str], Interrupted], moment: str) -> None:
    assert interrupted(moment).status == 130


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_leaves_no_process(interrupted: Callable[[str], Interrupted], moment: str) -> None:
    assert interrupted(moment).processes == []


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_leaves_whole_seed_files_and_what_was_found(
    interrupted: Callable[[str], Interrupted], moment: str
) -> None:
    folder = interrupted(moment).folder
    files = {path for path in folder.rglob("*") if path.is_file()}
    written = {path for path in files if path.name == "found.json"}
    assert [path for path in files - written if path.parent.name != "symm-seeds" or not seeds.load(path).findings] == []
    assert bool(files - written) == (moment == "while shrinking")
    for path in written:
        assert bool(json.loads(path.read_text())["findings"]) == (moment == "while shrinking")
    assert bool(written) == (moment != "while ranks start")


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_is_one_line_of_two_words(interrupted: Callable[[str], Interrupted], moment: str) -> None:
    assert interrupted(moment).err == "symm: interrupted\n"
