"""Steps as data: frozen, hashable, the same after JSON, and refused when JSON holds nonsense."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from harness.scenario.operands import View
from harness.scenario.steps import (
    AllGather,
    Allocate,
    AllReduce,
    AllToAll,
    Ballast,
    Broadcast,
    Capture,
    Deny,
    EndCapture,
    InFlight,
    Prepare,
    Recreate,
    Reduce,
    ReduceScatter,
    Refuse,
    Release,
    Replay,
    SendReceive,
    Stall,
    Steady,
    Step,
    Straggle,
    Trim,
)

EVERY_KIND: list[Step] = [
    Allocate("a", "tp", 64),
    Release("a"),
    AllGather("tp", View("a"), 4),
    ReduceScatter("tp", View("a"), 4),
    AllReduce("tp", View("a"), 4),
    AllToAll("tp", View("a"), 4),
    Broadcast("tp", View("a"), 4),
    Reduce("tp", View("a"), 4),
    SendReceive("tp", View("a"), 4, View("b")),
    Ballast("a", "tp", 1, 512),
    Trim(),
    Recreate("tp"),
    Straggle(3, 20),
    Stall(3, 20),
    InFlight(),
    Deny(2),
    Refuse(1),
    Steady(),
    Prepare("g"),
    Capture("g"),
    EndCapture("g"),
    Replay("g"),
]
EVERY_FIELD: list[Step] = [
    Allocate("a", "attn_tp", (1, 1, 7, 7), "bfloat16", "plain"),
    AllGather("attn_tp", View("a", 3), (1, 1, 2, 2), View("b", 5), "kernel", claim=True),
    ReduceScatter("attn_tp", View("a", 3), (1, 1, 2, 2), View("b", 5), "avg", "kernel", claim=True),
    AllReduce("attn_tp", View("a", 3), (1, 1, 2, 2), View("b", 5), "avg", "kernel", claim=True, stream=1),
    AllToAll("attn_tp", View("a", 3), 0, View("b", 5), ((1, 2), (3, 4)), "kernel", claim=True, stream=1),
    Broadcast("attn_tp", View("a", 3), (1, 1, 2, 2), 1, View("b", 5), "kernel", claim=True, stream=1),
    Reduce("attn_tp", View("a", 3), (1, 1, 2, 2), 1, View("b", 5), "max", claim=True, stream=1),
    SendReceive("attn_tp", View("a", 3), (1, 1, 2, 2), View("b", 5), -1, claim=True, stream=1),
]


def named(step: Step) -> str:
    return step.kind


def decoded(text: bytes | str) -> Step:
    return msgspec.json.decode(text, type=Step)


def test_the_step_of_every_kind_is_tried_here() -> None:
    assert {type(step) for step in EVERY_KIND} == {*get_args(Step)}


@pytest.mark.parametrize("step", [*EVERY_KIND, *EVERY_FIELD], ids=named)
def test_step_survives_json(step: Step) -> None:
    assert decoded(msgspec.json.encode(step)) == step


@pytest.mark.parametrize("step", [*EVERY_KIND, *EVERY_FIELD], ids=named)
def test_step_has_the_hash_of_its_copy_from_json(step: Step) -> None:
    assert hash(decoded(msgspec.json.encode(step))) == hash(step)


@pytest.mark.parametrize("step", EVERY_KIND, ids=named)
def test_step_is_tagged_with_its_kind_in_json(step: Step) -> None:
    assert msgspec.json.decode(msgspec.json.encode(step))["kind"] == step.kind


@pytest.mark.parametrize("step", [step for step in EVERY_KIND if step.__struct_fields__], ids=named)
def test_step_is_frozen(step: Step) -> None:
    with pytest.raises(AttributeError, match="immutable"):
        setattr(step, step.__struct_fields__[0], "changed")


@pytest.mark.parametrize(
    ("text", "offender"),
    [
        ('{"kind": "all_scatter", "family": "tp"}', "'all_scatter'"),
        ('{"kind": "trim", "pool": "tp"}', "`pool`"),
        ('{"kind": "release"}', "`buffer`"),
        ('{"kind": "allocate", "buffer": "a", "family": "tp", "elements": 8, "dtype": "float4"}', "'float4'"),
        ('{"kind": "allocate", "buffer": "a", "family": "tp", "elements": [8, "9"]}', "`$.elements[1]`"),
        ('{"kind": "all_gather", "family": "tp", "output": "a", "count": 8}', "`$.output`"),
        ('{"kind": "reduce_scatter", "family": "tp", "source": {"buffer": "a"}, "count": 8, "op": "xor"}', "'xor'"),
    ],
)
def test_json_that_is_no_step_is_refused_by_name(text: str, offender: str) -> None:
    with pytest.raises(msgspec.ValidationError) as error:
        decoded(text)
    assert offender in str(error.value)
