"""The JSON values of a dump: where each begins, and damaged ones refused by their line."""

from __future__ import annotations

import pytest

from harness.scenario.dumps.documents import Document, DumpError, documents


def test_values_are_found_on_lines_of_their_own_and_over_several() -> None:
    found, other = documents("dump", b'{"a": 1}\n\n{"b":\n 2} {"c": 3}\n')
    assert found == [
        Document("dump line 1", {"a": 1}),
        Document("dump line 3", {"b": 2}),
        Document("dump line 4", {"c": 3}),
    ]
    assert other == 0


def test_lines_of_a_log_are_counted_and_passed_over() -> None:
    found, other = documents("log", b'loading weights\n{"a": 1} done\nready')
    assert ([each.value for each in found], other) == ([{"a": 1}], 3)


def test_a_launcher_says_the_rank_and_torchrun_the_place_on_the_node() -> None:
    found, _ = documents("log", b'[rank3]: {"a": 1}\n[default2]:{"b": 2}')
    assert [(each.value, each.rank) for each in found] == [({"a": 1}, 3), ({"b": 2}, None)]


DAMAGED = {
    "cut off": (b'{"a": 1}\n{"a": [1, 2', "line 2"),
    "one bracket more": (b'{"a": 1}\n{"a": 1}}', "line 2"),
    "a key twice": (b'{"a": 1, "a": 2}', "key 'a' is there twice"),
    "half a character": (b'["\\ud800"]', "surrogates"),
    "too deep": (b"[" * 100_000, "recursion"),
    "a number of 5000 digits": (b"[" + b"1" * 5000 + b"]", "digits"),
    "no UTF-8": (b'{"a": "\xff"}', "utf-8"),
    "a pickle": (b"\x80\x04K\x01.", "pickle"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_value_is_refused_by_its_place(name: str) -> None:
    data, why = DAMAGED[name]
    with pytest.raises(DumpError, match=rf"^dump dump.*{why}"):
        documents("dump", data)


def test_many_lines_take_time_in_proportion() -> None:
    found, _ = documents("dump", b'{"family": "tp", "ranks": [0, 1]}\n' * 60_000)
    assert found[-1].where == "dump line 60000"
