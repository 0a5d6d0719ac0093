"""Peers: every kind of call has its operands, and no rule has to know kinds."""

from __future__ import annotations

import typing

import pytest

from harness.oracle.peers import peer_operands
from harness.trace.events import Kind, Role


@pytest.mark.parametrize("kind", typing.get_args(Kind))
def test_every_kind_that_a_trace_can_hold_has_its_operands(kind: Kind) -> None:
    assert {*peer_operands(kind)} <= {"source", "output"}


@pytest.mark.parametrize(
    ("kind", "roles"),
    [("all_gather", ("output",)), ("reduce_scatter", ("source",)), ("broadcast", ()), ("send", ())],
)
def test_peers_address_the_operand_with_a_chunk_for_every_rank(kind: Kind, roles: tuple[Role, ...]) -> None:
    assert peer_operands(kind) == roles


def test_copy_engines_write_into_the_outputs_of_peers() -> None:
    assert [peer_operands(kind, "copy-engine") for kind in ("all_gather", "all_to_all")] == [("output",)] * 2
    assert peer_operands("all_to_all") == ()
