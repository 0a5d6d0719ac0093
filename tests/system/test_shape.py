"""The shape of a plug-in: a mistake in it names what is wrong and where that is defined; what fits is silent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch

from harness.errors import PluginError
from harness.system.boundary import Misshapen
from harness.system.collectives import load_collectives
from harness.system.pools.built_in import load_pool
from harness.system.shape import allocate, check_pool

CPU = torch.device("cpu")


class Fits:
    """A policy as small as one can be."""

    def __init__(self, context: object) -> None: ...

    @contextmanager
    def use(self, group: object) -> Iterator[None]:
        yield

    def close(self) -> None: ...


class NoContext(Fits):
    def __init__(self) -> None: ...


class NoGroup(Fits):
    @contextmanager
    def use(self) -> Iterator[None]:  # type: ignore[override]
        yield


class WantsMore(Fits):
    def close(self, now: bool) -> None: ...  # type: ignore[override]


class AgreesOnNothing(Fits):
    def agreed(self) -> int:
        return 0


class WantsAnyGroup(Fits):
    def wants(self, nbytes: int) -> bool:
        return True


class OneTensor:
    def all_gather(self, context: object, output: object) -> None: ...

    def reduce_scatter(self, context: object, output: object, source: object, op: str) -> None: ...


class Whole:
    def all_gather(self, context: object, *tensors: object) -> None: ...

    def reduce_scatter(self, context: object, output: object, source: object, op: str = "sum") -> None: ...


class Functional:
    functional = True

    def all_gather(self, context: object, source: object) -> object: ...

    def reduce_scatter(self, context: object, source: object, op: str) -> object: ...


class Lives(Whole):
    def open(self, context: object) -> None: ...

    def close(self, context: object) -> None: ...


class FallsBackByClass(Whole):
    fallback = Whole


class OpensNothing(Whole):
    def open(self) -> None: ...


class ClosesNothing(Functional):
    close = "never"


class CapturesByNumber(Whole):
    captures = 1


class FunctionalByName(Functional):
    functional = "yes"  # type: ignore[assignment]


class FunctionalWithOutput(Whole):
    functional = True

    def all_gather(self, context: object, output: object, source: object) -> None: ...  # type: ignore[override]


def make(context: object) -> NoGroup:
    """A factory, of which nothing is known before it is called."""
    return NoGroup(context)


def at(thing: Any) -> str:
    """Where it is defined in this file."""
    return rf"\({thing.__name__}, test_shape\.py:\d+\)"


@pytest.mark.parametrize(
    ("pool", "text"),
    [
        (NoContext, rf"cannot be called as NoContext\(context\): too many positional arguments {at(NoContext)}"),
        (NoGroup, rf"cannot be called as use\(group\): too many positional arguments {at(NoGroup.use)}"),
        (WantsMore, rf"cannot be called as close\(\): missing a required argument: 'now' {at(WantsMore.close)}"),
        (AgreesOnNothing, rf"cannot be called as agreed\(sizes\): too many .* {at(AgreesOnNothing.agreed)}"),
        (WantsAnyGroup, rf"cannot be called as wants\(group, nbytes\): too many .* {at(WantsAnyGroup.wants)}"),
    ],
)
def test_a_policy_that_takes_other_arguments_is_refused_where_it_is_defined(pool: type, text: str) -> None:
    with pytest.raises(PluginError, match=rf"^pool '{__name__}:{pool.__name__}' {text}$"):
        load_pool(f"{__name__}:{pool.__name__}")


def test_collectives_that_take_other_arguments_are_refused_where_they_are_defined() -> None:
    text = rf"cannot be called as all_gather\(context, output, source\): too many .* {at(OneTensor.all_gather)}$"
    with pytest.raises(PluginError, match=text):
        load_collectives(f"{__name__}:OneTensor")


@pytest.mark.parametrize("name", ["Fits", "make"])
def test_a_policy_that_fits_is_taken(name: str) -> None:
    assert load_pool(f"{__name__}:{name}") is globals()[name]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("OpensNothing", rf"cannot be called as open\(context\): too many .* {at(OpensNothing.open)}$"),
        ("ClosesNothing", rf"has no method 'close' {at(ClosesNothing)}$"),
    ],
)
def test_open_and_close_of_another_shape_are_refused(name: str, text: str) -> None:
    with pytest.raises(PluginError, match=text):
        load_collectives(f"{__name__}:{name}")


def test_collectives_that_fit_are_taken() -> None:
    assert isinstance(load_collectives(f"{__name__}:Lives"), Lives)
    assert isinstance(load_collectives(f"{__name__}:Whole"), Whole)
    assert isinstance(load_collectives(f"{__name__}:Functional"), Functional)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CapturesByNumber", rf"says captures = 1, which is no bool {at(CapturesByNumber)}"),
        ("FunctionalByName", rf"says functional = 'yes', which is no bool {at(FunctionalByName)}"),
        (
            "FunctionalWithOutput",
            r"cannot be called as all_gather\(context, source\): missing a required argument: 'source' "
            + at(FunctionalWithOutput.all_gather),
        ),
    ],
)
def test_collectives_that_say_what_they_are_not_are_refused(name: str, text: str) -> None:
    with pytest.raises(PluginError, match=rf"^collectives '{__name__}:{name}' {text}$"):
        load_collectives(f"{__name__}:{name}")


def test_a_fallback_is_a_name() -> None:
    with pytest.raises(PluginError, match=rf"says fallback = .*, which is no str {at(FallsBackByClass)}"):
        load_collectives(f"{__name__}:FallsBackByClass")


def test_what_a_factory_makes_is_looked_at_once_it_is_made() -> None:
    with pytest.raises(Misshapen, match=r"use\(group\)"):
        check_pool(make(None))


# the context, and what it does to torch.empty


def policy(use: Callable[[object], object]) -> Any:
    made = Fits(None)
    made.use = use  # type: ignore[assignment, method-assign]
    return made


@contextmanager
def never(group: object) -> Iterator[None]:
    if group is not None:
        yield


@contextmanager
def twice(group: object) -> Iterator[None]:
    yield
    yield


def plain(group: object) -> Iterator[None]:
    yield


def nothing(group: object) -> None: ...


@contextmanager
def silent(group: object) -> Iterator[None]:
    with suppress(RuntimeError):
        yield


def giving(make: Callable[..., torch.Tensor]) -> Callable[[object], object]:
    """A context under which `torch.empty` is this."""

    @contextmanager
    def use(group: object) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "empty", make)
            yield

    return use


zeros = torch.zeros
META = torch.empty(8, dtype=torch.bfloat16, device="meta")
USES: dict[str, tuple[Callable[[object], object], str]] = {
    "no yield": (never, "has a use() that does not yield"),
    "two yields": (twice, "has a use() that yields more than once"),
    "no decorator": (plain, "has a use() that gives generator, which is no context manager"),
    "no result": (nothing, "has a use() that gives NoneType, which is no context manager"),
    "dtype": (
        giving(lambda size, dtype, device: zeros(size)),
        "has a use() under which torch.empty gives dtype torch.float32 and not torch.bfloat16",
    ),
    "count": (
        giving(lambda size, dtype, device: zeros(size + 1, dtype=dtype)),
        "has a use() under which torch.empty gives shape [9] and not [8]",
    ),
    "strides": (
        giving(lambda size, dtype, device: zeros(2 * size, dtype=dtype)[::2]),
        "has a use() under which torch.empty gives strides [2] and not [1]",
    ),
    "device": (
        giving(lambda size, dtype, device: META),
        "has a use() under which torch.empty gives device meta and not cpu",
    ),
}


@pytest.mark.parametrize("mistake", USES)
def test_a_context_that_is_none_or_gives_another_tensor_is_named_with_its_place(mistake: str) -> None:
    use, text = USES[mistake]
    with pytest.raises(Misshapen, match=rf"^{re.escape(text)} \(\w+, test_shape\.py:\d+\)$"):
        allocate(policy(use), None, 8, torch.bfloat16, CPU)  # type: ignore[arg-type]


def test_a_context_that_hides_what_is_raised_inside_it_is_named() -> None:
    def fail(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("no room")

    @contextmanager
    def use(group: object) -> Iterator[None]:
        with silent(group), giving(fail)(group):  # type: ignore[attr-defined]
            yield

    with pytest.raises(Misshapen, match="hides what is raised inside it"):
        allocate(policy(use), None, 8, torch.bfloat16, CPU)  # type: ignore[arg-type]


def test_a_context_of_the_plug_ins_own_that_does_not_yield_is_what_it_raised() -> None:
    @contextmanager
    def use(group: object) -> Iterator[None]:
        with never(group):
            yield

    with pytest.raises(RuntimeError, match="didn't yield"):
        allocate(policy(use), None, 8, torch.bfloat16, CPU)  # type: ignore[arg-type]


def test_a_context_that_yields_once_gives_the_tensor_asked_for() -> None:
    tensor = allocate(Fits(None), None, 8, torch.bfloat16, CPU)  # type: ignore[arg-type]
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.bfloat16, (8,))
