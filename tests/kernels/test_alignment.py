"""Kernels on addresses of any alignment: right and in bounds, and by words of 16 bytes where all addresses allow."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.rank.values import gather_values, reduce_result, reduce_values
from harness.scenario.operands import ITEMSIZE
from harness.substrate.bits import bits
from tests.tools.interpreter import Interpreter
from tests.tools.kernel_calls import COUNTS, CPU, QUICK, as_bytes, called, keys

WORD = 16
PUSHES = ("all_gather", "all_to_all")


@st.composite
def shifts(draw: st.DrawFn, size: int) -> tuple[list[int], list[int]]:
    """For each rank, how many elements its tensors lie behind an aligned address: most often none, or the same."""
    same = st.integers(0, 16).map(lambda shift: [shift] * size)
    each = st.one_of(st.just([0] * size), same, st.lists(st.integers(0, 16), min_size=size, max_size=size))
    return draw(each), draw(each)


def exchanged(sources: torch.Tensor) -> list[torch.Tensor]:
    """What an all-to-all leaves on each rank."""
    size = len(sources)
    return [*sources.view(size, size, -1).transpose(0, 1).reshape(size, -1)]


@pytest.mark.parametrize("kind", PUSHES)
@QUICK
@given(data=st.data(), size=st.integers(1, 4), count=COUNTS, dtype=st.sampled_from([*ITEMSIZE]))
def test_a_push_is_right_and_in_bounds_whatever_is_aligned(
    interpreter: Interpreter, kind: str, data: st.DataObject, size: int, count: int, dtype: str
) -> None:
    chunks = size if kind == "all_to_all" else 1
    sources = gather_values(keys(size), chunks * count, getattr(torch, dtype), CPU)
    outputs, is_fenced = called(interpreter, kind, sources, *data.draw(shifts(size)))
    wanted = exchanged(bits(sources)) if kind == "all_to_all" else [bits(sources).flatten()] * size
    assert all(torch.equal(bits(output), want) for output, want in zip(outputs, wanted, strict=True))
    assert is_fenced


@QUICK
@given(
    data=st.data(),
    size=st.sampled_from([1, 2, 4]),
    count=COUNTS,
    how=st.sampled_from(
        [("float32", "sum"), ("bfloat16", "avg"), ("float16", "max"), ("int8", "min"), ("uint8", "sum")]
    ),
)
def test_a_reduction_is_right_and_in_bounds_whatever_is_aligned(
    interpreter: Interpreter, data: st.DataObject, size: int, count: int, how: tuple[str, str]
) -> None:
    dtype, op = how
    sources = reduce_values(keys(size), size * count, getattr(torch, dtype), op, True, CPU)
    outputs, is_fenced = called(interpreter, "reduce_scatter", sources, op, *data.draw(shifts(size)))
    assert torch.equal(bits(torch.cat(outputs)), bits(reduce_result(sources, op)))
    assert is_fenced


def widths(interpreter: Interpreter, kind: str, count: int, peers: list[int], own: list[int]) -> dict[int, int]:
    """How many elements of each width a call on bytes stores, on all ranks together."""
    sources = gather_values(keys(2), 2 * count if kind == "all_to_all" else count, torch.uint8, CPU)
    found = interpreter("stored", kind, [as_bytes(row) for row in sources], "uint8", peers, own)
    return {int(width): int(number) for width, number in found.items()}


@pytest.mark.parametrize("kind", PUSHES)
def test_aligned_words_go_whole_and_their_rest_by_elements(kind: str, interpreter: Interpreter) -> None:
    assert widths(interpreter, kind, 10 * WORD, [0, 16], [16, 0]) == {8: 4 * 20}
    # the second chunk of an output begins between two words if its size is not one of words
    rest = {1: 4 * 165} if kind == "all_to_all" else {8: 2 * 20, 1: 2 * 5 + 2 * 165}
    assert widths(interpreter, kind, 10 * WORD + 5, [0, 0], [0, 0]) == rest


@pytest.mark.parametrize("kind", PUSHES)
@pytest.mark.parametrize(("peers", "own"), [([0, 1], [0, 0]), ([8, 8], [8, 8])])
def test_one_address_between_two_words_has_all_go_by_elements(
    kind: str, peers: list[int], own: list[int], interpreter: Interpreter
) -> None:
    assert widths(interpreter, kind, 10 * WORD, peers, own) == {1: 4 * 160}


@pytest.mark.parametrize("kind", PUSHES)
def test_a_source_between_two_words_concerns_its_own_rank(kind: str, interpreter: Interpreter) -> None:
    assert widths(interpreter, kind, 10 * WORD, [0, 0], [0, 1]) == {8: 2 * 20, 1: 2 * 160}
