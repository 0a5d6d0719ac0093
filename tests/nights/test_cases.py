"""Which finding a case is: its own, the one that its draw counts as, or that of a smaller layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.campaign import seeds
from harness.campaign.seeds import Seed
from harness.campaign.settled import Settled
from harness.campaign.symptoms import Symptom
from harness.nights.merge import merge
from harness.oracle.findings import Record
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate
from harness.scenario.topology import Topology
from tests.nights.test_merge import entry_of, leave, result
from tests.tools.campaigns import TWO, layers

LEAK = Record("leak", "shown", 1 << 20, (0,))
A = Allocate("a", "tp", 8)


def case(*steps: Any, topology: Topology = TWO) -> Seed:
    """A case that a kill left unsigned."""
    return Seed(seeds.SCHEMA, Scenario(topology, steps), (LEAK,), {}, is_smallest=False)


def signed(unsigned: Seed, is_smallest: bool = True, *noted: str) -> Seed:
    found = Settled.of(unsigned.findings, unsigned.scenario).signature
    return msgspec.structs.replace(unsigned, signature=found, is_smallest=is_smallest, symptoms=noted)


FOUR = Topology("four", "sglang", {"tp": 4})
PLAIN, LONG, WIDE = case(A), case(*layers(2)), case(*layers(1), topology=FOUR)
SMALLEST, NEEDS_CALLS = signed(PLAIN), signed(case(*layers(1)))
KINDS = {
    "plain": PLAIN,
    "long": LONG,
    "wide": WIDE,
    "smallest": SMALLEST,
    "needs calls": NEEDS_CALLS,
    "needs calls on four ranks": signed(WIDE),
    "its time was up": signed(LONG, False),
    "another symptom was seen to be it": signed(PLAIN, True, "hang"),
    "that symptom": msgspec.structs.replace(PLAIN, findings=(msgspec.structs.replace(LEAK, rule="hang"),)),
}


def shard(root: Path, index: int, *held: Seed, of: int = 4, folder: str = "seeds", **facts: Any) -> Path:
    """What a shard leaves that has these cases."""
    path = leave(root / f"{index}", index, of)
    entries = []
    for seed in held:
        name = seeds.name_for(seed.findings[0].rule, seed.scenario)
        seeds.save(seed, path / folder / name)
        entries.append({**entry_of(seed.findings[0].rule, name, index), "signature": seed.signature})
    return leave(root / f"{index}", index, of, findings=entries, **facts)


def joined(*folders: Path) -> dict[str, Any]:
    """The JSON of what they come to."""
    into = folders[0].parent / "joined"
    assert merge(folders, into).problems == []
    facts: dict[str, Any] = json.loads((into / "run.json").read_text())
    return facts


def by_signature(facts: dict[str, Any]) -> dict[str, list[int]]:
    """Of each finding the shards that met it."""
    return {each["signature"]: each["shards"] for each in facts["findings"]}


@pytest.mark.parametrize("folder", ["seeds", "known"])
def test_an_unsigned_case_is_the_signed_finding_that_its_draw_counts_as(tmp_path: Path, folder: str) -> None:
    path = shard(tmp_path, 2, SMALLEST, folder=folder)
    if folder == "known":
        facts = json.loads((path / "run.json").read_text())
        facts["findings"][0]["status"] = "known"
        (path / "run.json").write_text(json.dumps(facts))
    facts = joined(shard(tmp_path, 1, LONG), path)
    assert by_signature(facts) == {SMALLEST.signature: [1, 2]}
    assert [seeds.load(each["seed_file"]).scenario for each in facts["cases"]] == [LONG.scenario]


def test_an_unsigned_case_that_counts_as_none_is_a_finding_of_its_own(tmp_path: Path) -> None:
    facts = joined(shard(tmp_path, 1, PLAIN), shard(tmp_path, 2, NEEDS_CALLS))
    assert by_signature(facts) == {NEEDS_CALLS.signature: [2], "": [1]}
    assert facts["cases"] == []


def test_a_case_whose_time_was_up_is_the_finding_that_its_draw_counts_as(tmp_path: Path) -> None:
    facts = joined(shard(tmp_path, 1, signed(LONG, False)), shard(tmp_path, 2, SMALLEST))
    assert by_signature(facts) == {SMALLEST.signature: [1, 2]}


def test_a_case_that_is_larger_by_its_layout_alone_is_the_smaller_one(tmp_path: Path) -> None:
    facts = joined(shard(tmp_path, 1, signed(WIDE)), shard(tmp_path, 2, NEEDS_CALLS))
    assert by_signature(facts) == {NEEDS_CALLS.signature: [1, 2]}


def test_two_cases_that_were_shrunk_to_their_ends_are_two_findings(tmp_path: Path) -> None:
    facts = joined(shard(tmp_path, 1, NEEDS_CALLS), shard(tmp_path, 2, SMALLEST))
    assert by_signature(facts) == {SMALLEST.signature: [2], NEEDS_CALLS.signature: [1]}


def test_the_file_of_a_finding_has_the_symptoms_that_any_shard_noted(tmp_path: Path) -> None:
    folders = [shard(tmp_path, index, signed(PLAIN, True, noted)) for index, noted in ((1, "hang"), (2, "race"))]
    (finding,) = joined(*folders)["findings"]
    known = seeds.load(finding["seed_file"])
    settled = Settled.of(known.findings, known.scenario, noted=known.symptoms)
    assert {Symptom("hang"), Symptom("race")} < settled.symptoms


def test_a_file_that_was_signed_after_the_last_json_is_one_finding(tmp_path: Path) -> None:
    path = shard(tmp_path, 1, PLAIN)
    (file,) = (path / "seeds").iterdir()
    seeds.save(SMALLEST, file)
    facts = joined(path)
    assert [each["shards"] for each in facts["findings"]] == [[1]]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(sorted(KINDS)), max_size=3, unique=True), min_size=2, max_size=4),
    st.randoms(use_true_random=False),
)
def test_order_grouping_and_repetition_of_cases_change_nothing(shards: list[list[str]], random: Any) -> None:
    with TemporaryDirectory() as name:
        root = Path(name)
        folders = [shard(root, index, *(KINDS[each] for each in held)) for index, held in enumerate(shards, 1)]
        merge(folders, root / "once")
        expected = result(root / "once")
        ways: dict[str, Callable[[Path], object]] = {
            "again": lambda into: [merge(folders, into) for _ in range(2)],
            "one by one": lambda into: [merge([each], into) for each in random.sample(folders, len(folders))],
            "of joined ones": lambda into: merge([root / "again", root / "one by one"], into),
        }
        for how, way in ways.items():
            way(root / how)
            assert result(root / how) == expected
