"""A signature is the same for one bug however it is met, and another one for another bug."""

from __future__ import annotations

import re

import msgspec
import pytest

from harness.campaign.signatures import signature
from harness.oracle.findings import Record
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, AllReduce, Recreate, Release, Step
from harness.scenario.system import System
from harness.scenario.topology import Topology
from tests.tools.campaigns import TWO

OWNER = Record("wrong-owner", "step 2 … 'b' of rank 0", 2, (0, 1))
CASE = (Allocate("a", "pp", 1), Allocate("b", "tp", 4), AllGather("tp", View("b"), 1))
BASE = Scenario(TWO, CASE)


def named(*steps: Step, found: Record = OWNER, topology: Topology = TWO, system: System | None = None) -> str:
    return signature([found], Scenario(topology, steps, system or System()))


def test_a_signature_has_16_hex_digits() -> None:
    assert re.fullmatch(r"[0-9a-f]{16}", named(*CASE))


@pytest.mark.parametrize(
    "other",
    [
        Scenario(TWO, (Allocate("x", "moe_dp", 7), Allocate("y", "attn_tp", 9), AllGather("attn_tp", View("y"), 3))),
        Scenario(TWO, (CASE[0], CASE[1], AllReduce("tp", View("b"), 2))),
        Scenario(TWO, (*CASE, Release("a"), Recreate("tp"))),
        Scenario(TWO, (CASE[0], Allocate("c", "pp", 1), *CASE[1:])),
        msgspec.structs.replace(BASE, seed=5),
        Scenario(Topology("v", "vllm", {"tp": 2}), CASE),
    ],
    ids=["names and counts", "operation", "what follows", "the same once more", "data seed", "convention"],
)
def test_one_bug_of_memory_has_one_signature(other: Scenario) -> None:
    last = next(index for index, step in enumerate(other.steps) if isinstance(step, AllGather | AllReduce))
    found = msgspec.structs.replace(OWNER, step=last, ranks=(1,), explanation="otherwise")
    assert signature([found], other) == named(*CASE)


@pytest.mark.parametrize(
    "other",
    [
        named(CASE[0], Allocate("b", "pp", 2), AllGather("pp", View("b"), 1)),
        named(CASE[0], Recreate("tp"), *CASE[1:], found=msgspec.structs.replace(OWNER, step=3)),
        named(*CASE, found=msgspec.structs.replace(OWNER, rule="unregistered")),
        named(*CASE, found=msgspec.structs.replace(OWNER, cause="on some ranks alone")),
        named(*CASE, system=System("per-group")),
        named(*CASE, system=System(sites="implicit")),
        named(*CASE, topology=Topology("wide", "sglang", {"tp": 4})),
        named(Allocate("a", "pp", (1, 2)), *CASE[1:]),
    ],
    ids=["one family", "a step more", "rule", "cause", "pool", "sites", "width", "sizes that differ"],
)
def test_another_bug_has_another_signature(other: str) -> None:
    assert other != named(*CASE)


WRONG = Record("wrong-data", "shown", 1, (0,))
KERNEL = (Allocate("a", "tp", 4), AllReduce("tp", View("a"), 1, via="kernel"))


def test_a_kernel_is_told_by_its_operation_and_not_by_the_pool() -> None:
    own = named(*KERNEL, found=WRONG)
    assert own == named(*KERNEL, found=WRONG, system=System("per-group"))
    gather = AllGather("tp", View("a"), 1, via="kernel")
    others = [
        named(KERNEL[0], gather, found=WRONG),
        named(KERNEL[0], AllReduce("tp", View("a"), 1, op="max", via="kernel"), found=WRONG),
        named(Allocate("a", "tp", 4, "bfloat16"), KERNEL[1], found=WRONG),
        named(*KERNEL, found=WRONG, system=System(collectives="mine:Mine")),
    ]
    assert len({own, *others}) == 5


def raised(text: str, cause: str) -> str:
    found = Record("raised", f"pool 'mine' raised {text} on rank 0 at step 0 (allocate).", 0, (0,), cause=cause)
    return named(*CASE, found=found)


def test_an_exception_is_told_by_its_place_and_message_without_lines_and_numbers() -> None:
    one = raised("ValueError: no block of 512 bytes for 'b0' in f (m.py:3)", "ValueError in f (m.py:3)")
    moved = raised("ValueError: no block of 64 bytes for 'b7' in f (m.py:9)", "ValueError in f (m.py:9)")
    other = raised("ValueError: no window in f (m.py:3)", "ValueError in f (m.py:3)")
    elsewhere = raised("ValueError: no block of 512 bytes for 'b0' in g (m.py:3)", "ValueError in g (m.py:3)")
    assert (one == moved, len({one, other, elsewhere})) == (True, 3)


def test_what_follows_does_not_count() -> None:
    follows = Record("wrong-data", "shown", 2, (0,))
    assert signature([OWNER, follows], BASE) == signature([OWNER], BASE)
