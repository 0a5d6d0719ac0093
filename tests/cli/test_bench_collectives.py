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
    ],
)
def test_a_wrong_request_ends_before_ranks_start(arguments: tuple[str, ...], named: str, tmp_path: Path) -> None:
    ended = forked(tmp_path, "bench", "collectives", "--substrate", "sim", *arguments)
    assert ended.status == 2
    assert named in ended.err
