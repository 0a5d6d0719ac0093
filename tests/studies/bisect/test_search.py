"""Which versions are tried, and between which ones a change is found."""

from __future__ import annotations

import pytest

from harness.studies.bisect.search import Search, Tried, Verdict

LETTERS: dict[str, Verdict] = {"g": "clean", "b": "fails", "o": "other", "s": "skipped"}


def searched(verdicts: str, known: str | None = None, every: bool = False) -> tuple[Search, list[str]]:
    """A search over versions `0`, `1` and so on, one for each letter, and the versions in the order of trying."""
    order: list[str] = []

    def attempt(version: str) -> Tried:
        order.append(version)
        return Tried(version, LETTERS[verdicts[int(version)]])

    search = Search([str(place) for place in range(len(verdicts))], attempt)
    search.run(known, every)
    return search, order


def changes(verdicts: str, known: str | None = None, every: bool = False) -> list[tuple[str, str]]:
    """Before and after of each change."""
    return [(each.before.version, each.after.version) for each in searched(verdicts, known, every)[0].changes]


@pytest.mark.parametrize("count", [2, 3, 4, 9, 16])
def test_the_change_is_found_wherever_it_lies(count: int) -> None:
    for at in range(1, count):
        assert changes("g" * at + "b" * (count - at)) == [(str(at - 1), str(at))]


def test_a_seed_that_ceases_to_fail_is_found_too() -> None:
    (change,) = searched("bbbggg")[0].changes
    assert (change.before.version, change.after.version, change.begins) == ("2", "3", False)


def test_a_seed_that_begins_to_fail_says_so() -> None:
    assert searched("ggb")[0].changes[0].begins


def test_the_ends_are_tried_first_and_no_version_twice() -> None:
    _, order = searched("g" * 20 + "b" * 12)
    assert order[:2] == ["0", "31"]
    assert len(order) == len(set(order)) <= 2 + 5


@pytest.mark.parametrize("verdicts", ["gggg", "bbbb", "oggo"])
def test_equal_ends_show_no_change_and_nothing_else_is_tried(verdicts: str) -> None:
    search, order = searched(verdicts)
    assert (search.changes, order) == ([], ["0", "3"])


def test_a_version_that_breaks_another_rule_has_not_the_fault() -> None:
    assert changes("ggoobb") == [("3", "4")]


def test_versions_that_cannot_run_are_named_between_those_that_did() -> None:
    (change,) = searched("gggsssbbb")[0].changes
    assert (change.before.version, change.after.version, change.skipped) == ("2", "6", ("3", "4", "5"))


def test_a_version_that_cannot_run_elsewhere_costs_no_sharpness() -> None:
    for at in range(1, 8):
        verdicts = ["g"] * at + ["b"] * (9 - at)
        for skipped in set(range(1, 8)) - {at - 1, at}:
            holed = "".join("s" if place == skipped else verdict for place, verdict in enumerate(verdicts))
            assert changes(holed) == [(str(at - 1), str(at))], holed


@pytest.mark.parametrize("outside", range(8))
def test_the_end_is_the_outermost_version_that_runs(outside: int) -> None:
    assert changes("s" * outside + "g" + "b" * 9) == [(str(outside), str(outside + 1))]
    assert changes("g" * 9 + "b" + "s" * outside) == [("8", "9")]


def test_versions_too_old_to_run_are_not_all_tried() -> None:
    _, order = searched("s" * 30 + "g" * 20 + "b" * 20)
    assert len([version for version in order if int(version) < 30]) <= 10


def test_a_version_that_runs_among_many_that_do_not_is_found() -> None:
    search, _ = searched("ssgssbss")
    assert [(each.before.version, each.after.version) for each in search.changes] == [("2", "5")]


def test_where_nothing_runs_everything_was_tried() -> None:
    search, order = searched("sssss")
    assert (search.changes, sorted(order)) == ([], list("01234"))


def test_one_version_that_runs_shows_no_change() -> None:
    assert changes("sbs") == []


def test_between_equal_ends_the_version_that_the_seed_was_found_with_is_tried() -> None:
    assert changes("gggbbbgg", known="4") == [("2", "3"), ("5", "6")]


def test_between_ends_that_differ_it_is_not_needed() -> None:
    assert "1" not in searched("ggggbbbbbbb", known="1")[1]


@pytest.mark.parametrize("known", ["77", "0", None])
def test_a_seed_found_with_a_version_that_is_none_of_these_changes_nothing(known: str | None) -> None:
    assert searched("gbbg", known)[1] == ["0", "3"]


def test_every_version_on_request_and_every_change() -> None:
    search, order = searched("gbsbgob", every=True)
    assert order == list("0123456")
    found = [(each.before.version, each.after.version) for each in search.changes]
    assert found == [("0", "1"), ("3", "4"), ("5", "6")]
