"""Every form of a dump that is read, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from harness.scenario.dumps.documents import Document, DumpError
from harness.scenario.dumps.reading import Entry, entries, without_host_groups

PAIR = (0, 1)


def read(value: Any, rank: int | None = None) -> list[Entry]:
    return entries(Document("dump line 1", value, rank))


FORMS: dict[str, Any] = {
    "a group": {"family": "tp", "ranks": [0, 1]},
    "groups of a family": {"family": "tp", "groups": [[0, 1]]},
    "a rank's view": {"rank": 0, "groups": {"tp": [0, 1]}},
    "families": {"tp": [[0, 1]]},
    "families, one group each": {"tp": [0, 1]},
    "a list": [{"family": "tp", "ranks": [0, 1]}],
    "all configs": [{"pg_name": "1", "pg_desc": "mesh_tp", "pg_size": 2, "ranks": [0, 1]}],
    "config info": [{"pg_name": "1", "pg_desc": "mesh_tp", "ranks": [], "group_size": 2}],
    "Flight Recorder": {"pg_config": {"1": {"name": "1", "desc": "tp", "ranks": "[0, 1]"}}},
    "Flight Recorder's groups alone": {"1": {"name": "1", "desc": "tp", "ranks": "[0, 1]"}},
    "a profiler's trace": {"distributedInfo": {"rank": 0, "pg_config": [{"pg_desc": "tp", "ranks": [0, 1]}]}},
    "places by rank": {"tp": {"0": 0, "1": 1}},
    "other keys beside": {"family": "tp", "ranks": [0, 1], "host": "node7", "time": 1.5},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_shows_its_group(form: str) -> None:
    assert [(entry.family, entry.ranks) for entry in read(FORMS[form])] == [("tp", PAIR)]


def test_places_by_rank_give_the_order_of_the_communicator() -> None:
    assert [entry.ranks for entry in read({"tp": {"0": 2, "1": 0, "2": 1}})] == [(1, 2, 0)]


def test_a_group_without_a_description_is_known_by_its_name_unless_that_is_a_number() -> None:
    listed = [{"pg_name": "7", "pg_desc": "undefined", "ranks": [0]}, {"pg_name": "mine", "pg_desc": "", "ranks": [0]}]
    assert [entry.family for entry in read(listed)] == ["undefined", "mine"]


def test_a_recorder_that_knows_no_ranks_shows_nothing() -> None:
    assert read({"pg_config": {"": {"name": "", "desc": "", "ranks": "[]"}}}) == []


# who speaks


def test_a_rank_speaks_where_it_is_named_by_the_value_or_by_the_launcher() -> None:
    assert [entry.speaker for entry in read({"rank": 1, "groups": {"tp": [0, 1]}}, rank=0)] == [1]
    assert [entry.speaker for entry in read({"tp": [0, 1]}, rank=0)] == [0]


def listing(*groups: list[int]) -> list[dict[str, Any]]:
    return [{"pg_name": str(name), "pg_desc": f"f{name}", "ranks": ranks} for name, ranks in enumerate(groups)]


def test_the_rank_that_is_in_all_listed_process_groups_speaks() -> None:
    assert {entry.speaker for entry in read(listing([0, 1], [1, 3]))} == {1}


@pytest.mark.parametrize(
    "groups", [([0, 1], [0, 1]), ([0, 1], [2, 3]), ([3],)], ids=["two are", "none is", "one group"]
)
def test_a_listing_that_leaves_it_open_has_no_speaker(groups: tuple[list[int], ...]) -> None:
    assert {entry.speaker for entry in read(listing(*groups))} == {None}


# what is refused

WRONG: dict[str, tuple[Any, str]] = {
    "a number": (5, "5 is no object"),
    "a list of numbers": ([1], "1 is no object"),
    "nothing": ({}, "shows no group"),
    "keys of no form": ({"hello": "you"}, "its keys: 'hello'"),
    "a negative rank": ({"tp": [-1, 0]}, "'tp' has rank -1"),
    "a rank that is no number": ({"tp": ["0", "1"]}, "rank '0'"),
    "a rank that is true": ({"tp": [True, 0]}, "rank True"),
    "a fraction": ({"tp": [0.0, 1]}, "rank 0.0"),
    "a rank beyond all worlds": ({"tp": [0, 1 << 70]}, "ranks are 0 to 1023"),
    "a rank twice": ({"tp": [0, 1, 0]}, "rank 0 2 times"),
    "no rank": ({"family": "tp", "ranks": []}, r"'tp' has \[\] for ranks"),
    "a family of nothing": ({"family": "tp"}, "has None for ranks"),
    "text for ranks": ({"family": "tp", "ranks": "[0, 1"}, "for ranks"),
    "a size that is not so": ({"pg_desc": "tp", "ranks": [0, 1], "pg_size": 3}, "has 2 ranks and says 3"),
    "a world beyond all worlds": ({"pg_desc": "tp", "ranks": [], "pg_size": 1 << 70}, "rank 1024"),
    "a speaker that is none": ({"rank": -3, "groups": {"tp": [0]}}, "rank -3"),
    "places that are none": ({"tp": {"a": 0}}, "for ranks"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_shows_no_group_is_refused_by_name_and_place(name: str) -> None:
    value, why = WRONG[name]
    with pytest.raises(DumpError, match=rf"^dump dump line 1: .*{why}"):
        read(value)


# groups without NCCL


def of(backend: str, label: str = "tp") -> dict[str, Any]:
    return {"pg_name": label, "pg_desc": label, "backend_config": backend, "ranks": [0, 1]}


def test_groups_of_gloo_are_left_out_beside_those_of_nccl() -> None:
    found = without_host_groups(
        read([of("cuda:nccl"), of("cpu:gloo,cuda:gloo", "dp"), of("cpu:gloo,cuda:nccl", "x:cpu")])
    )
    assert [entry.label for entry in found] == ["tp"]


def test_groups_of_gloo_stay_where_there_is_no_nccl() -> None:
    assert len(without_host_groups(read([of("gloo"), of("cpu:gloo,cuda:gloo", "dp")]))) == 2
