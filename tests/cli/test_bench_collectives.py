"""`symm bench collectives` on the simulation: its rows, plug-ins that are wrong, slow or refuse, and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.tools.commands import Run, forked

MINE = '''
import time

from harness.system.collectives import TritonCollectives, Unsupported


class Plain:
    """Gathers as the built-in kernels do, and no more."""

    def all_gather(self, context, output, source):
        TritonCollectives().all_gather(context, output, source)

    def reduce_scatter(self, context, output, source, op):
        raise Unsupported("it only gathers")


class Slow(Plain):
    def all_gather(self, context, output, source):
        time.sleep(0.1)
        super().all_gather(context, output, source)


class Wrong(Plain):
    def all_gather(self, context, output, source):
        super().all_gather(context, output, source)
        if context.rank == 1:
            output[0] += 1


class Raises(Plain):
    def all_gather(self, context, output, source):
        raise ValueError("not today")
'''
SMALL = ("bench", "collectives", "--substrate", "sim", "--sizes", "1K", "--op", "all_gather")


def plugged(*names: str) -> list[str]:
    return [option for name in names for option in ("--collectives", f"mine:{name}")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "mine.py").write_text(MINE)
    named = plugged("Plain", "Slow", "Wrong", "Raises")
    reduced = ("--op", "reduce_scatter")
    return forked(folder, *SMALL, *reduced, *named, "--json", "-", "--html", "page.html")


def row(run: Run, contender: str, op: str = "all_gather") -> dict[str, Any]:
    (found,) = [each for each in run.data["rows"] if (each["contender"], each["op"]) == (contender, op)]
    return found  # type: ignore[no-any-return]


def test_every_contender_has_a_row_and_what_is_right_a_time(run: Run) -> None:
    mine = [f"mine:{name}" for name in ("Plain", "Slow", "Wrong", "Raises")]
    names = [each["contender"] for each in run.data["rows"] if each["op"] == "all_gather"]
    assert names == ["library", "torch", "triton", "cuda", *mine, "copy"], run.err
    for name in ("library", "torch", "triton", "mine:Plain", "mine:Slow", "copy"):
        found = row(run, name)
        assert (found["state"], len(found["seconds"])) == ("timed", 2), found
        assert found["bandwidth"] == 1024 / found["time"]
    assert row(run, "library")["ratio"] == 1


def test_what_needs_a_gpu_is_refused_on_the_simulation(run: Run) -> None:
    assert (row(run, "cuda")["state"], row(run, "cuda")["time"]) == ("refused", None)
    assert "needs a GPU" in row(run, "cuda")["reason"]


def test_a_wrong_plug_in_is_named_and_has_no_time(run: Run) -> None:
    assert run.status == 1
    assert (row(run, "mine:Wrong")["state"], row(run, "mine:Wrong")["time"]) == ("wrong", None)
    assert "mine:Wrong, all_gather, wrong: wrong data" in run.err


def test_a_plug_in_that_raises_is_named_and_the_others_go_on(run: Run) -> None:
    found = row(run, "mine:Raises")
    assert found["state"] == "failed"
    assert "not today" in found["reason"]
    assert [row(run, name, "reduce_scatter")["state"] for name in ("torch", "copy")] == ["timed", "timed"]


def test_a_plug_in_that_refuses_says_why(run: Run) -> None:
    found = row(run, "mine:Plain", "reduce_scatter")
    assert (found["state"], found["reason"]) == ("refused", "it only gathers")


def test_a_slow_plug_in_is_slower(run: Run) -> None:
    assert row(run, "mine:Slow")["time"] > 0.1
    assert row(run, "mine:Slow")["ratio"] > 1


def test_what_it_says_of_itself(run: Run) -> None:
    found = run.data
    assert (found["schema"], found["world"], found["dtype"]) == (1, 2, "bfloat16")
    assert found["command"].startswith("symm ")
    assert found["environment"]["substrate"] == "sim"
    assert "Not comparable with other machines" in run.err


def test_the_page_has_every_row(run: Run) -> None:
    page = (run.folder / "page.html").read_text()
    cells = [cell.text for cell in ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>")).iter("td")]
    assert cells.count("mine:Slow") == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--sizes", "1X"), "'1X'"),
        (("--op", "all_to_all"), "'all_to_all'"),
        (("--collectives", "nothing:There"), "nothing"),
        (("--html", "no/page.html"), "no/page.html"),
        (("--world", "1"), "'1' is no number of ranks from 2 to 16"),
        (("--world", "2,17"), "'17' is no number of ranks from 2 to 16"),
        (("--world", "2,4,2"), "2 ranks are named twice"),
        (("--world", "2,four"), "'four'"),
    ],
)
def test_a_wrong_request_ends_before_ranks_start(arguments: tuple[str, ...], named: str, tmp_path: Path) -> None:
    ended = forked(tmp_path, "bench", "collectives", "--substrate", "sim", *arguments)
    assert ended.status == 2
    assert named in ended.err


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("several")
    (folder / "mine.py").write_text(MINE)
    return forked(folder, *SMALL, "--world", "3,2", *plugged("Wrong"), "--json", "-", "--html", "page.html")


def test_every_number_of_ranks_has_a_table_and_copies_to_all_where_there_are_peers(several: Run) -> None:
    tables = {table["world"]: {row["contender"]: row for row in table["rows"]} for table in several.data["worlds"]}
    assert [*tables] == [2, 3], several.err
    assert [*tables[2]] == ["library", "torch", "triton", "cuda", "mine:Wrong", "copy"]
    assert [*tables[3]] == [*tables[2], "copy to all"]
    for name in ("library", "torch", "triton", "copy", "copy to all"):
        assert (tables[3][name]["state"], len(tables[3][name]["seconds"])) == ("timed", 2), tables[3][name]


def test_a_wrong_cell_on_any_number_of_ranks_is_the_status_of_all(several: Run) -> None:
    assert several.status == 1


def test_times_are_compared_with_those_on_fewer_ranks(several: Run) -> None:
    times = {
        (table["world"], row["contender"]): row["time"] for table in several.data["worlds"] for row in table["rows"]
    }
    (grown,) = [each for each in several.data["by_ranks"] if (each["world"], each["contender"]) == (3, "triton")]
    assert grown["growth"] == times[3, "triton"] / times[2, "triton"]
    assert grown["to_copies"] == times[3, "triton"] / times[3, "copy to all"]
    assert "all_gather, by ranks, bfloat16, substrate sim" in several.err


def test_the_page_has_the_tables_of_all(several: Run) -> None:
    page = ElementTree.fromstring((several.folder / "page.html").read_text().removeprefix("<!DOCTYPE html>"))
    titles = [title.text for title in page.iter("h2")]
    assert titles == ["all_gather, 2 ranks", "all_gather, 3 ranks", "all_gather, by ranks", "Machine"]
