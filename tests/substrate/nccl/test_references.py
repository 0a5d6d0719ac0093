"""What C code gives up of references that it does not hold is taken back."""

import ctypes
import sys

import pytest

from harness.substrate.nccl.references import kept


def give_up(value: object, times: int = 1) -> None:
    """As a faulty C function does."""
    for _ in range(times):
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(value))


def fresh() -> int:
    return int("98765432109876")


@pytest.mark.parametrize("times", [0, 1, 2])
def test_what_was_given_up_is_taken_back(times):
    value = fresh()
    held = [value] * 4
    before = sys.getrefcount(value)
    with kept(value):
        give_up(value, times)
    assert sys.getrefcount(value) == before
    assert held == [fresh()] * 4


def test_what_was_given_up_without_it_stays_lost():
    value = fresh()
    held = [value] * 4
    before = sys.getrefcount(value)
    give_up(value)
    missing = before - sys.getrefcount(value)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))
    assert (missing, held) == (1, [fresh()] * 4)


def test_each_of_several_objects_gets_its_own_back():
    first, second = fresh(), fresh()
    held = [first, second] * 2
    before = sys.getrefcount(first), sys.getrefcount(second)
    with kept(first, second):
        give_up(second)
    assert (sys.getrefcount(first), sys.getrefcount(second)) == before
    assert held == [fresh()] * 4


def test_a_reference_that_the_call_keeps_is_left_alone():
    value, kept_by_the_call = fresh(), []
    before = sys.getrefcount(value)
    with kept(value):
        kept_by_the_call.append(value)
    assert sys.getrefcount(value) == before + 1
