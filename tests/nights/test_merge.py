"""Joining folders of runs: in any order, any grouping and any number of times the same; what is damaged is named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.campaign import seeds
from harness.errors import UsageError
from harness.nights.merge import merge
from harness.oracle.findings import Record
from harness.scenario.scenario import Scenario
from tests.tools.campaigns import TWO, layers
from tests.tools.folders import content

CASES = [Scenario(TWO, layers(count)) for count in (1, 2, 3)]
"""From small to large."""
RULES = ("leak", "hang")
Case = tuple[str, int]
"""A rule, and which of the cases breaks it."""


def seed_of(rule: str, case: int, cause: str = "") -> seeds.Seed:
    return seeds.Seed(seeds.SCHEMA, CASES[case], (Record(rule, f"a {rule}", 0, (0,), cause=cause),), {})


def entry_of(rule: str, name: str, draws: int) -> dict[str, Any]:
    return {"rule": rule, "explanation": f"a {rule}", "seed_file": f"night/seeds/{name}", "draws_to_find": draws}


def leave(folder: Path, index: int, of: int, cases: Sequence[Case] = (), is_killed: bool = False, **facts: Any) -> Path:
    """What a shard leaves in a folder; one that was killed has seed files that its JSON does not name yet."""
    entries = []
    for draws, (rule, case) in enumerate(cases):
        name = seeds.name_for(rule, CASES[case])
        seeds.save(seed_of(rule, case), folder / "seeds" / name)
        entries.append(entry_of(rule, name, draws + index))
    run = {"schema": 1, "seed": 5, "shard": {"index": index, "of": of}, "draws": 10 * index, "host": f"host{index}"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({**run, "findings": [] if is_killed else entries, **facts}))
    return folder


SHARDS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(RULES), st.integers(0, 2)),
        st.booleans(),
        st.dictionaries(st.sampled_from(["a.json", "b.json"]), st.sampled_from(['{"x": 1}', '{"x": 2}', '{"x": 22}'])),
    ),
    min_size=1,
    max_size=4,
)


def lay(root: Path, shards: list[Any]) -> list[Path]:
    folders = []
    for index, (cases, is_killed, corpus) in enumerate(shards, 1):
        folder = leave(root / f"{index}", index, len(shards) + 1, [*cases.items()], is_killed)
        for name, text in corpus.items():
            (folder / "corpus").mkdir(exist_ok=True)
            (folder / "corpus" / name).write_text(text)
        folders.append(folder)
    return folders


def result(into: Path) -> dict[str, Any]:
    """All that is in a joined folder, but for its own name."""
    found = content(into)
    return {name: data.replace(str(into).encode(), b"DIR") for name, data in found.items()}


@settings(max_examples=25, deadline=None)
@given(SHARDS, st.randoms(use_true_random=False))
def test_order_grouping_and_repetition_change_nothing(shards: list[Any], random: Any) -> None:
    with TemporaryDirectory() as name:
        root = Path(name)
        folders = lay(root / "night", shards)
        merge(folders, root / "once")
        expected = result(root / "once")

        merge(folders, root / "once")
        assert result(root / "once") == expected

        shuffled = random.sample(folders, len(folders))
        merge([*shuffled, *folders], root / "shuffled")
        assert result(root / "shuffled") == expected

        for folder in shuffled:
            merge([folder], root / "one by one")
        assert result(root / "one by one") == expected

        merge([root / "one by one", root / "once"], root / "of joined ones")
        assert result(root / "of joined ones") == expected

        merge([root / "night"], root / "by the folder above")
        assert result(root / "by the folder above") == expected


@settings(max_examples=25, deadline=None)
@given(SHARDS)
def test_each_finding_stays_once_with_its_smallest_case(shards: list[Any]) -> None:
    with TemporaryDirectory() as name:
        root = Path(name)
        merged = merge(lay(root / "night", shards), root / "joined")
        smallest = {rule: min(c[rule] for c, *_ in shards if rule in c) for rule in {r for c, *_ in shards for r in c}}
        findings = json.loads((root / "joined/run.json").read_text())["findings"]
        assert {each["rule"] for each in findings} == smallest.keys()
        assert len(findings) == len(smallest)
        files = {path.name for path in (root / "joined/seeds").glob("*")}
        assert files == {seeds.name_for(rule, CASES[case]) for rule, case in smallest.items()}
        assert all(seeds.load(each["seed_file"]).findings[0].rule == each["rule"] for each in findings)
        assert not merged.problems


def test_a_finding_says_which_shards_found_it(tmp_path: Path) -> None:
    folders = [leave(tmp_path / "1", 1, 3, [("leak", 0)]), leave(tmp_path / "3", 3, 3, [("leak", 2)])]
    merge(folders, tmp_path / "joined")
    (finding,) = json.loads((tmp_path / "joined/run.json").read_text())["findings"]
    assert (finding["shards"], finding["draws_to_find"]) == ([1, 3], 1)


def test_two_causes_of_a_rule_are_two_findings(tmp_path: Path) -> None:
    for cause in ("one", "two"):
        name = seeds.name_for("raised", CASES[0], cause)
        seeds.save(seed_of("raised", 0, cause), leave(tmp_path / "1", 1, 1) / "seeds" / name)
    merged = merge([tmp_path / "1"], tmp_path / "joined")
    assert merged.keys == ["raised one", "raised two"]


def test_two_signatures_of_a_rule_are_two_findings_and_one_signature_is_one(tmp_path: Path) -> None:
    entries = [{**entry_of("leak", "", 1), "signature": signature, "seed_file": ""} for signature in ("aa", "bb", "aa")]
    merged = merge([leave(tmp_path / "1", 1, 1, findings=entries)], tmp_path / "joined")
    assert merged.keys == ["aa", "bb"]


def test_a_known_finding_that_one_shard_still_found_is_not_gone(tmp_path: Path) -> None:
    gone = [{"signature": each, "rule": "leak", "seed_file": "k.json"} for each in ("aa", "bb")]
    found = [{**entry_of("leak", "", 1), "signature": "aa", "status": "known"}]
    folders = [leave(tmp_path / "1", 1, 2, gone=gone), leave(tmp_path / "2", 2, 2, findings=found)]
    merge(folders, tmp_path / "joined")
    assert [each["signature"] for each in json.loads((tmp_path / "joined/run.json").read_text())["gone"]] == ["bb"]


def test_known_findings_are_joined_like_seeds(tmp_path: Path) -> None:
    for index, case in ((1, 2), (2, 0)):
        folder = leave(tmp_path / f"{index}", index, 2)
        seeds.save(seed_of("leak", case), folder / "known" / f"{case}.json")
    merge([tmp_path / "1", tmp_path / "2"], tmp_path / "joined")
    assert {path.name for path in (tmp_path / "joined/known").iterdir()} == {"0.json"}


def test_a_known_finding_is_looked_for_among_the_known_files_and_stays_one(tmp_path: Path) -> None:
    for index in (1, 2):
        found = [{**entry_of("leak", "k.json", 1), "signature": "aa", "status": "known"}]
        folder = leave(tmp_path / f"{index}", index, 2, findings=found)
        seeds.save(msgspec.structs.replace(seed_of("leak", 0), signature="aa"), folder / "known" / "k.json")
    for _ in range(2):
        merged = merge([tmp_path / "1", tmp_path / "2"], tmp_path / "joined")
        (finding,) = json.loads((tmp_path / "joined/run.json").read_text())["findings"]
        assert (merged.problems, finding["status"], finding["shards"]) == ([], "known", [1, 2])
        assert seeds.load(finding["seed_file"]).signature == "aa"


def met(rate: list[int] | None, ran: list[int], draws: int = 0, **more: Any) -> dict[str, Any]:
    """A known finding as the JSON of a run has it."""
    status = "flaky" if rate and rate[0] < rate[1] else "known"
    named = {**entry_of("leak", "", 1), "signature": "aa", "status": status}
    return {**named, "draws": draws, "rate": rate, "ran": ran, **more}


@pytest.mark.parametrize(
    ("first", "second", "rate", "status"),
    [
        (met([1, 1], [1, 1], 4), met([1, 3], [1, 3], 5), [2, 4], "flaky"),
        (met([1, 1], [1, 1], 4), met([2, 2], [2, 2], 5), [3, 3], "known"),
        (met([4, 6], [1, 1], 4), met([3, 5], [0, 0], 5), [4, 6], "flaky"),
        (met([0, 10], [0, 0], 4), met([1, 1], [1, 1], 5), [1, 1], "known"),
        (met(None, [0, 0], 4), met(None, [0, 0], 5), None, "known"),
    ],
    ids=["both ran", "both always failed", "one rate is of the file", "what no run says is no rate", "none ran"],
)
def test_draws_and_rate_of_a_known_finding_are_those_of_all_shards(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], rate: list[int] | None, status: str
) -> None:
    folders = [leave(tmp_path / f"{index}", index, 2, findings=[each]) for index, each in ((1, first), (2, second))]
    for order in (folders, folders[::-1], [tmp_path / "joined", *folders]):
        merge(order, tmp_path / "joined")
        (finding,) = json.loads((tmp_path / "joined/run.json").read_text())["findings"]
        assert (finding["draws"], finding["rate"], finding["status"]) == (9, rate, status)


def test_passes_of_a_shard_that_says_gone_are_runs_of_a_finding_that_another_met(tmp_path: Path) -> None:
    gone = {"signature": "aa", "rule": "leak", "seed_file": "k.json", "rate": [0, 20], "ran": [0, 20]}
    leave(tmp_path / "1", 1, 2, gone=[gone])
    leave(tmp_path / "2", 2, 2, findings=[met([1, 2], [1, 2], 3)])
    merge([tmp_path / "1", tmp_path / "2"], tmp_path / "joined")
    facts = json.loads((tmp_path / "joined/run.json").read_text())
    assert [(each["rate"], each["draws"]) for each in facts["findings"]] == [([1, 22], 3)]
    assert facts["gone"] == []


def test_the_rate_of_a_finding_that_is_gone_is_that_of_all_shards(tmp_path: Path) -> None:
    gone = {"signature": "aa", "rule": "leak", "seed_file": "k.json", "rate": [0, 20], "ran": [0, 20]}
    folders = [leave(tmp_path / f"{index}", index, 2, gone=[gone]) for index in (1, 2)]
    for _ in range(2):
        merge(folders, tmp_path / "joined")
        assert json.loads((tmp_path / "joined/run.json").read_text())["gone"][0]["rate"] == [0, 40]


def test_a_joined_run_has_the_fields_of_a_run_and_the_facts_of_its_shards(tmp_path: Path) -> None:
    folders = [leave(tmp_path / f"{index}", index, 2, [("leak", 0)], vacuous=1) for index in (1, 2)]
    merge(folders, tmp_path / "joined")
    one, whole = (json.loads((folder / "run.json").read_text()) for folder in (folders[0], tmp_path / "joined"))
    assert one.keys() <= whole.keys()
    assert (whole["draws"], whole["vacuous"], whole["missing"]) == (30, 2, [])
    assert [(each["shard"]["index"], each["draws"]) for each in whole["shards"]] == [(1, 10), (2, 20)]


def test_what_was_kept_without_a_finding_is_carried_over(tmp_path: Path) -> None:
    folder = leave(tmp_path / "1", 1, 1)
    seeds.save(seeds.Seed(seeds.SCHEMA, CASES[0], (), {}), folder / "seeds" / "interrupted-0123456789.json")
    merged = merge([folder], tmp_path / "joined")
    assert (merged.keys, [*content(tmp_path / "joined" / "seeds")]) == ([], ["interrupted-0123456789.json"])


DAMAGED = {
    "seeds/torn.json": '{"schema": 1, "scen',
    "seeds/other.json": '{"schema": 9}',
    "run.json": "[]",
    "corpus/torn.json": "{",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named_and_what_is_beside_it_is_joined(tmp_path: Path, name: str) -> None:
    folders = [leave(tmp_path / "1", 1, 2, [("leak", 1)]), leave(tmp_path / "2", 2, 2, [("hang", 1)])]
    broken = folders[1] / name
    broken.parent.mkdir(exist_ok=True)
    broken.write_text(DAMAGED[name])
    merged = merge(folders, tmp_path / "joined")
    (problem,) = merged.problems
    assert str(broken) in problem
    assert merged.keys == ["hang", "leak"]


@pytest.mark.parametrize(
    "facts",
    [
        {"draws": "many"},
        {"schema": 2},
        {"findings": [{"rule": 7}]},
        {"shard": {"index": "x"}},
        {"shards": [3]},
        {"speed": 3},
    ],
    ids=str,
)
def test_a_run_that_holds_something_else_is_named_and_left_out(tmp_path: Path, facts: dict[str, Any]) -> None:
    folders = [leave(tmp_path / "1", 1, 2), leave(tmp_path / "2", 2, 2, **facts)]
    merged = merge(folders, tmp_path / "joined")
    assert [problem.split(":")[0] for problem in merged.problems] == [str(folders[1] / "run.json")]
    assert [each["shards"] for each in merged.missing] == [[2]]


def test_a_seed_file_that_a_run_names_and_that_is_gone_is_named_and_its_finding_kept(tmp_path: Path) -> None:
    folder = leave(tmp_path / "1", 1, 1, [("leak", 0)])
    (file,) = (folder / "seeds").iterdir()
    file.unlink()
    merged = merge([folder], tmp_path / "joined")
    assert merged.problems == [f"{file}: the run names it, and it is not there"]
    assert json.loads((tmp_path / "joined/run.json").read_text())["findings"][0]["seed_file"] == ""


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    merged = merge([leave(tmp_path / "1", 1, 2), tmp_path / "empty", tmp_path / "gone"], tmp_path / "joined")
    assert merged.problems == [f"{tmp_path / 'empty'}: it holds no run", f"{tmp_path / 'gone'}: no such folder"]


def test_where_no_folder_holds_a_run_there_is_nothing_to_merge(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"nothing to merge: .*empty: it holds no run"):
        merge([tmp_path / "empty"], tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


def test_a_file_that_was_being_written_is_no_part_of_a_run(tmp_path: Path) -> None:
    folder = leave(tmp_path / "1", 1, 1, [("leak", 0)])
    (folder / "seeds" / ".leak-1.json.4711").write_text("{")
    (folder / ".run.json.4711").write_text("{")
    assert merge([folder], tmp_path / "joined").problems == []


def test_the_case_of_a_run_that_was_killed_while_it_shrank_is_the_one_on_disk(tmp_path: Path) -> None:
    """Its JSON names the file of a larger case, which has given way since."""
    folder = leave(tmp_path / "1", 1, 1, [("leak", 2)])
    (larger,) = (folder / "seeds").iterdir()
    larger.unlink()
    seeds.save(seed_of("leak", 0), folder / "seeds" / seeds.name_for("leak", CASES[0]))
    merged = merge([folder], tmp_path / "joined")
    (finding,) = json.loads((tmp_path / "joined/run.json").read_text())["findings"]
    assert (merged.problems, finding["steps"]) == ([], len(CASES[0].steps))
    assert msgspec.json.decode(Path(finding["seed_file"]).read_bytes())["scenario"]
