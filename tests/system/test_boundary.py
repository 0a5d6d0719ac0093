"""What the system under test raises ends the draw, unless it is part of the draw."""

from __future__ import annotations

from typing import NoReturn

import pytest
import torch

from harness.substrate.communicator import NotOwned
from harness.system.boundary import SystemRaised, call_system


def raising(error: BaseException) -> NoReturn:
    raise error


def test_a_result_passes() -> None:
    assert call_system("pool", lambda: 7) == 7


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no room"), NotOwned()], ids=["memory", "ownership"])
def test_an_exception_that_engines_handle_passes(error: Exception) -> None:
    with pytest.raises(type(error)):
        call_system("pool", lambda: raising(error))


@pytest.mark.parametrize("error", [ValueError("a mistake"), SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_any_other_exception_names_the_part_and_keeps_its_cause(error: BaseException) -> None:
    with pytest.raises(SystemRaised) as raised:
        call_system("collectives", lambda: raising(error))
    assert (raised.value.where, raised.value.__cause__) == ("collectives", error)


def test_the_text_has_the_exceptions_class() -> None:
    with pytest.raises(SystemRaised, match=r"^ValueError: a mistake$"):
        call_system("pool", lambda: raising(ValueError("a mistake")))
