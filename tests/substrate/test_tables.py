"""Tables on the device are kept by what they hold."""

from __future__ import annotations

import torch

from harness.substrate.tables import MOST, OF_A_GRAPH, GraphTables, Tables

CPU = torch.device("cpu")


def test_a_table_is_made_once_for_the_same_numbers_and_stream() -> None:
    tables = Tables(CPU)
    found = tables.of([1, 1 << 60], 0)
    assert (found.tolist(), found.dtype) == ([1, 1 << 60], torch.int64)
    assert tables.of((1, 1 << 60), 0) is found


def test_other_numbers_and_other_streams_have_tables_of_their_own() -> None:
    tables = Tables(CPU)
    asked = [([1, 2], 0), ([2, 1], 0), ([1], 2), ([1, 2], 1), ([], 0)]
    found = [tables.of(*each) for each in asked]
    assert [each.tolist() for each in found] == [numbers for numbers, _ in asked]
    assert len({id(each) for each in found}) == len(asked)


def test_a_table_that_was_written_to_is_made_again() -> None:
    tables = Tables(CPU)
    tables.of([1, 2], 0)[1:].fill_(7)
    assert tables.of([1, 2], 0).tolist() == [1, 2]


def test_a_table_of_inference_mode_is_kept_too() -> None:
    tables = Tables(CPU)
    with torch.inference_mode():
        found = tables.of([3], 0)
        assert tables.of([3], 0) is found
        found.fill_(4)
    assert tables.of([3], 0).tolist() == [3]


def test_the_tables_that_were_used_last_are_kept() -> None:
    tables = Tables(CPU)
    first, second = tables.of([-1], 0), tables.of([-2], 0)
    for number in range(MOST - 1):
        tables.of([number], 0)
        assert tables.of([-1], 0) is first
    assert tables.of([-2], 0) is not second


def test_tables_of_a_graph_are_filled_when_its_capture_is_over() -> None:
    tables = GraphTables(CPU)
    first, second = tables.of([1, 2]), tables.of([3])
    assert first is not None
    assert second is not None
    tables.fill()
    assert (first.tolist(), second.tolist()) == ([1, 2], [3])


def test_a_graph_that_has_too_many_tables_is_told_so() -> None:
    tables = GraphTables(CPU)
    assert tables.of(range(OF_A_GRAPH)) is not None
    assert tables.of([1]) is None
