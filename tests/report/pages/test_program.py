"""A step in words, without what is left at its default."""

from __future__ import annotations

import pytest

from harness.report.pages.program import step_text
from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Allocate, Ballast, Deny, Recreate, ReduceScatter, Release, Step, Trim


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (Allocate("b", "tp", 2621296), "b: 2,621,296 × float32 for tp"),
        (Allocate("b", "tp", (1, 2), role="plain"), "b: 1/2 × float32 for tp, in ordinary memory"),
        (Ballast("x", "tp", 1, 512), "x: 512 bytes on rank 1 alone, in its pool of tp"),
        (Release("b"), "b"),
        (Recreate("tp"), "the communicators of tp"),
        (AllGather("tp", View("b"), 4), "on tp: output b in place, count 4"),
        (
            ReduceScatter("tp", View("a", 3), 4, View("b"), via="kernel", groups=((0, 1),)),
            "on tp: source a+3, output b, count 4, sum, by the kernel under test, only in [0, 1]",
        ),
        (Deny(0), "rank 0"),
        (Trim(), ""),
    ],
)
def test_a_step_says_what_it_does(step: Step, text: str) -> None:
    assert step_text(step) == text
