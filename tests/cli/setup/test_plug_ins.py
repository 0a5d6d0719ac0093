"""`symm check`: right plug-ins pass, and of wrong ones each thing that is missing is a sentence with what to write."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.tools.commands import Run, forked
from tests.tools.folders import sentence

MINE = """
from contextlib import contextmanager

from harness.system.collectives import TritonCollectives, Unsupported
from harness.system.pools.per_group import PerGroup


class RightPool(PerGroup):
    pass


class RightKernels(TritonCollectives):
    pass


class Functional:
    functional = True

    def all_gather(self, context, source):
        raise Unsupported

    def reduce_scatter(self, context, source, op):
        raise Unsupported


def made(context):
    return PerGroup(context)


class ManyMistakes:
    observed = "yes"

    def use(self):
        yield

    def wants(self, group):
        return True


class WantsTooMuch(PerGroup):
    def __init__(self, context, size):
        super().__init__(context)


class NoContext(PerGroup):
    def use(self, group):
        return group


class Raises(PerGroup):
    @contextmanager
    def use(self, group):
        raise RuntimeError("not today")
        yield




class HalfKernels:
    captures = "no"
    ops = ("sum", "median")

    def all_gather(self, context, output):
        pass


class ForgetsEverything(TritonCollectives):
    def all_gather(self, context, output, source):
        pass


class RaisesWhenBuilt(TritonCollectives):
    def __init__(self):
        raise OSError("no device")


class NeedsAGpu(TritonCollectives):
    fallback = "triton"


class Neither:
    def gather(self):
        pass
"""


@pytest.fixture(scope="module")
def checked(place: Callable[[str], Path]) -> Callable[[str], Run]:
    """Checks a plug-in, once."""

    @cache
    def ask(name: str) -> Run:
        folder = place("checked")
        (folder / "mine.py").write_text(MINE)
        return forked(folder, "check", f"mine:{name}", "--json", "-")

    return ask


def problems(run: Run) -> list[str]:
    (only,) = run.data["plug_ins"]
    found: list[str] = only["problems"]
    return found


@pytest.mark.parametrize(
    ("name", "part"),
    [("RightPool", "pool"), ("made", "pool"), ("RightKernels", "collectives"), ("Functional", "collectives")],
)
def test_a_right_plug_in_passes_and_has_run(checked: Callable[[str], Run], name: str, part: str) -> None:
    run = checked(name)
    (only,) = run.data["plug_ins"]
    assert (run.status, only["part"], only["problems"]) == (0, part, [])
    assert only["tried"].startswith("ran allocate, all_gather, ")


WRONG = {
    "ManyMistakes": [
        "write def use(self, group)",
        "write def close(self)",
        "write def wants(self, group, nbytes)",
        "observed",
    ],
    "WantsTooMuch": ["cannot be called as WantsTooMuch(context)"],
    "NoContext": ["which is no context manager"],
    "Raises": ["not today"],
    "HalfKernels": [
        "captures = True, or False",
        "write def all_gather(self, context, output, source)",
        "write def reduce_scatter(self, context, output, source, op)",
        "write ops = ",
    ],
    "ForgetsEverything": ["wrong-data"],
    "RaisesWhenBuilt": ["OSError: no device"],
    "Neither": ["use(self, group)"],
}


@pytest.mark.parametrize("name", WRONG)
def test_of_a_wrong_plug_in_every_mistake_is_a_sentence_of_its_own(checked: Callable[[str], Run], name: str) -> None:
    run = checked(name)
    found = problems(run)
    assert run.status == 1
    assert [text for text in WRONG[name] if not any(text in each for each in found)] == []
    assert len(found) >= len(WRONG[name])
    assert name in run.err


def test_one_that_needs_a_gpu_is_looked_at_and_not_run(checked: Callable[[str], Run]) -> None:
    run = checked("NeedsAGpu")
    (only,) = run.data["plug_ins"]
    assert (run.status, only["tried"].split(":")[0]) == (0, "not run")


def test_of_a_file_every_class_is_checked(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "two.py").write_text(
        "from harness.system.pools.per_group import PerGroup\n"
        "class One(PerGroup): pass\nclass Other:\n def use(self): ...\n"
    )
    run = forked(folder, "check", "deep/two.py", "--json", "-")
    assert [(each["name"], bool(each["problems"])) for each in run.data["plug_ins"]] == [
        ("deep.two:One", False),
        ("deep.two:Other", True),
    ]


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("nowhere:Pool", "'nowhere:Pool' does not import"),
        ("gone.py", "there is no file gone.py"),
        ("empty.py", "empty.py has no class"),
        ("puddle", "package.module:attribute"),
        ("torn.py", "SyntaxError"),
    ],
)
def test_what_does_not_load_is_one_sentence(tmp_path: Path, spec: str, named: str) -> None:
    folder = tmp_path / "wrong"
    folder.mkdir()
    (folder / "empty.py").write_text("x = 1\n")
    (folder / "torn.py").write_text("def half(:\n")
    run = forked(folder, "check", spec)
    assert (run.status, named in sentence(run)) == (2, True)


def test_a_class_that_is_nearly_named_is_answered_by_the_one_that_was_meant(tmp_path: Path) -> None:
    folder = tmp_path / "near"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    assert "did you mean RightPool?" in forked(folder, "check", "mine:RihgtPool").err
