"""What the system under test raises ends the draw, unless its caller handles it as engines do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import torch

from harness.errors import JournalFull
from harness.substrate.communicator import NotOwned
from harness.system.boundary import Misshapen, SystemRaised, call_back, call_system


class Unusual(BaseException):
    """What no `except Exception` sees."""


def raising(error: BaseException) -> NoReturn:
    raise error


def test_a_result_passes() -> None:
    assert call_system("pool", lambda: 7) == 7


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no room"), NotOwned()], ids=["memory", "ownership"])
def test_an_exception_that_the_caller_handles_passes(error: Exception) -> None:
    with pytest.raises(type(error)):
        call_system("pool", lambda: raising(error), type(error))


def test_a_mistake_in_the_shape_of_a_plug_in_is_none_that_it_raised() -> None:
    with pytest.raises(Misshapen):
        call_system("pool", lambda: raising(Misshapen("pool", raising, "has no room")))


@pytest.mark.parametrize("enter", [lambda call: call_system("pool", call), call_back], ids=["call", "callback"])
def test_a_full_journal_is_the_harnesss_own_also_below_code_of_a_plug_in(enter: Callable[[Any], None]) -> None:
    with pytest.raises(JournalFull):
        enter(lambda: raising(JournalFull("no room")))


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), SystemExit(3), KeyboardInterrupt(), Unusual(), torch.OutOfMemoryError("no room"), NotOwned()],
    ids=repr,
)
def test_any_other_exception_names_the_part_and_keeps_the_error(error: BaseException) -> None:
    with pytest.raises(SystemRaised) as raised:
        call_system("collectives", lambda: raising(error))
    assert (raised.value.where, raised.value.error) == ("collectives", error)


def test_the_text_has_the_exceptions_class() -> None:
    with pytest.raises(SystemRaised, match=r"^ValueError: a mistake$"):
        call_system("pool", lambda: raising(ValueError("a mistake")))
