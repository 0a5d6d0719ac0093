"""Names that stand for another thing are seen; new names are not, unless they hide one."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
import torch
from torch._compile import _disable_dynamo

from harness.rank import buffers
from harness.rank.state.names import Watch
from harness.substrate.sim.communicator import SimCommunicator


@pytest.mark.parametrize(
    ("owner", "name", "shown"),
    [
        (torch, "equal", "torch.equal"),
        (torch.Tensor, "copy_", "torch.Tensor.copy_"),
        (buffers, "equal", "harness.rank.buffers.equal"),
        (buffers.Canary, "damage", "harness.rank.buffers.Canary.damage"),
        (SimCommunicator, "register", "harness.substrate.sim.communicator.SimCommunicator.register"),
    ],
    ids=str,
)
def test_a_function_in_the_place_of_another_is_seen_once(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, shown: str
) -> None:
    watch, was = Watch(), getattr(owner, name)
    monkeypatch.setattr(owner, name, len)
    assert watch.replaced() == {"functions": ({shown: was}, {shown: len})}
    assert watch.replaced() == {}


def test_a_name_that_hides_a_built_in_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch()
    monkeypatch.setattr(buffers, "list", tuple, raising=False)
    assert watch.replaced() == {
        "functions": ({"harness.rank.buffers.list": list}, {"harness.rank.buffers.list": tuple})
    }


def test_a_new_name_is_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch()
    monkeypatch.setattr(torch, "something_new", len, raising=False)
    monkeypatch.setitem(sys.modules, "something_new", ModuleType("something_new"))
    assert watch.replaced() == {}


def test_a_function_that_is_gone_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, was = Watch(), torch.equal
    monkeypatch.delattr(torch, "equal")
    assert watch.replaced() == {"functions": ({"torch.equal": was}, {"torch.equal": None})}


def test_a_module_in_the_place_of_another_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, was, other = Watch(), sys.modules["json"], ModuleType("json")
    monkeypatch.setitem(sys.modules, "json", other)
    assert watch.replaced() == {"modules": ({"json": was}, {"json": other})}


def test_the_launcher_of_another_triton_kernel_is_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = "__triton_launcher"
    monkeypatch.setitem(sys.modules, launcher, ModuleType(launcher))
    watch = Watch()
    monkeypatch.setitem(sys.modules, launcher, ModuleType(launcher))
    assert watch.replaced() == {}


def test_a_module_that_is_loaded_lazily_is_not_loaded_by_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.find_spec("colorsys")
    assert spec is not None
    assert spec.loader is not None
    loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("colorsys", loader, origin=spec.origin))  # type: ignore[arg-type]
    loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "colorsys", module)
    assert Watch().replaced() == {}
    assert "rgb_to_hsv" not in object.__getattribute__(module, "__dict__")


def test_a_function_that_torchs_compiler_has_wrapped_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, was = Watch(), torch.manual_seed

    def wrapped(seed: int) -> object:
        return was(seed)

    wrapped._torchdynamo_orig_callable = was  # type: ignore[attr-defined]
    monkeypatch.setattr(torch, "manual_seed", wrapped)
    assert watch.replaced() == {}


class Incomparable:
    """As a tensor, which has no one answer to `==`."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ValueError("compared")


def test_no_value_is_compared_but_by_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "workspace", Incomparable(), raising=False)
    watch, now = Watch(), Incomparable()
    monkeypatch.setattr(torch, "workspace", Incomparable())
    assert watch.replaced() == {}
    monkeypatch.setattr(torch, "equal", now)
    ((_, new),) = watch.replaced().values()
    assert new["torch.equal"] is now


def test_an_object_that_is_equal_to_everything_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    class EqualToAll:
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 0

    watch = Watch()
    monkeypatch.setattr(torch, "equal", EqualToAll())
    assert [*watch.replaced()] == ["functions"]


def test_a_function_that_torchs_compiler_wraps_when_it_is_imported_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, was = Watch(), torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", _disable_dynamo(was))
    assert watch.replaced() == {}
