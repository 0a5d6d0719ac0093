"""Notes on what draws left: which system, which rank, from what to what, and how often; nothing where nothing is."""

from __future__ import annotations

from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from harness.report import leftovers
from harness.world.leftovers import PROCESS, Leftover

UMASK = Leftover(1, "my:Pool", "triton", "umask", "0o022", "0o077", draws=3)


def shown(*left: Leftover) -> str:
    file, world = StringIO(), SimpleNamespace(leftovers=left)
    leftovers.show(Console(file=file, width=400), world)  # type: ignore[arg-type]
    return file.getvalue()


@pytest.mark.parametrize(
    ("left", "line"),
    [
        (UMASK, "pool my:Pool, collectives triton: umask on rank 1: 0o022 → 0o077 (in 3 draws)"),
        (
            Leftover(0, "p:P", "c:C", "environment", "no A", "A=[1]", at_import=True),
            "no A → A=[1] (when it was loaded)",
        ),
        (
            Leftover(2, "p:P", "c:C", PROCESS, "runs", "exited with status 3"),
            "rank 2 exited with status 3, after a draw",
        ),
    ],
)
def test_a_note_says_who_left_what(left: Leftover, line: str) -> None:
    assert line in shown(left)


def test_a_note_on_loading_says_what_it_may_explain() -> None:
    loaded = Leftover(0, "p:P", "triton", "environment", "A=1", "A=0", at_import=True)
    assert "If a built-in part raised, that may be why.\n  pool p:P" in shown(loaded)


def test_a_rank_that_died_before_any_draw_is_no_draws_doing() -> None:
    died = Leftover(0, "none", "none", PROCESS, "runs", "exited with status 3")
    text = "Ranks ended before their first draw, and were replaced.\n  rank 0 exited with status 3 (1 time)\n"
    assert shown(died) == text


def test_a_run_that_left_nothing_has_no_note() -> None:
    assert shown() == ""


def test_json_has_the_same_facts() -> None:
    world: Any = SimpleNamespace(leftovers=[UMASK])
    assert leftovers.data(world) == [
        {"rank": 1, "pool": "my:Pool", "collectives": "triton", "what": "umask", "old": "0o022", "new": "0o077"}
        | {"at_import": False, "draws": 3}
    ]
