"""The adapters of `examples/engines/`, on packages with the layout of the releases and a library under NCCL's name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import examples.engines.megatron
import examples.engines.pytorch
import examples.engines.sglang
import examples.engines.vllm
from harness.errors import MachineError
from harness.scenario.layouts.groups import GroupId
from harness.scenario.system import POOLS
from harness.system.check import observed
from tests.tools.fake_engines import BUILDER, install
from tests.tools.fake_libnccl import fake_nccl
from tests.tools.observed_rank import ran

ENGINES = ("sglang", "vllm", "megatron", "pytorch")
LONGEST = 40
"""Lines of an adapter."""
USED = """
from types import SimpleNamespace
from examples.engines.{name} import Pool
group = SimpleNamespace(comm_ptr=comm.value, ranks=(0, 1), name="tp[0,1]", id="0-1", generation=0)
pool = Pool(None)
"""
TWICE = "for _ in range(2):\n    with pool.use(group):\n        pass\n"


def used(name: str, program: str, folder: Path, more: Mapping[str, str] | None = None) -> list[str]:
    """The events of a program over the pool of an engine whose package is in `folder`."""
    try:
        fake_nccl()
    except MachineError as error:
        pytest.skip(str(error))
    install(name, folder)
    start = f"import sys; sys.path.insert(0, {str(folder)!r})\n"
    more = {"TMPDIR": str(folder), "XDG_CACHE_HOME": str(folder), **(more or {})}
    events: list[str] = ran(start + BUILDER + USED.format(name=name) + program, folder, more)[1]
    return events


@pytest.mark.parametrize("name", ["sglang", "vllm"])
def test_an_engines_own_allocations_and_registrations_become_events(tmp_path: Path, name: str) -> None:
    assert used(name, TWICE, tmp_path) == ["SegmentAllocated", "Entered", "Registered"] * 2


@pytest.mark.parametrize("name", ["sglang", "vllm"])
def test_an_engine_is_loaded_anew_for_each_draw_and_its_library_built_once(tmp_path: Path, name: str) -> None:
    again = (
        "from harness.system.executed import forget\nforget()\ncpp_extension.load_inline = None\npool = Pool(None)\n"
    )
    assert len(used(name, TWICE + again + TWICE, tmp_path)) == 12


HANGS = """
import os, sys, threading, time, traceback
main = threading.main_thread().ident
def look():
    while type(rank.events[-1]).__name__ != "Entered":
        time.sleep(0.01)
    time.sleep(0.1)
    frames = traceback.extract_stack(sys._current_frames()[main])
    print(json.dumps([said, [rank.events[-1].call, frames[-1].name, os.path.basename(frames[-1].filename)], False]))
    sys.stdout.flush()
    os._exit(0)
nccl.alloc()
threading.Thread(target=look, daemon=True).start()
"""


def test_a_rank_that_hangs_in_an_engines_registration_has_written_it_and_stands_in_the_engines_frame(
    tmp_path: Path,
) -> None:
    hung = used("sglang", HANGS + TWICE, tmp_path, {"FAKE_NCCL_HANG": "CommWindowRegister"})
    assert hung == ["register", "__exit__", "pynccl_allocator.py"]


def test_sglang_leaves_a_group_of_one_rank_to_ordinary_memory(tmp_path: Path) -> None:
    assert used("sglang", "group.ranks = (0,)\n" + TWICE, tmp_path) == []


def test_a_pool_of_every_group_serves_a_group_of_one_rank(tmp_path: Path) -> None:
    program = "from examples.engines.sglang import OfEveryGroup\ngroup.ranks, pool = (0,), OfEveryGroup()\n"
    assert len(used("sglang", program + TWICE, tmp_path)) == 6


def test_vllm_registers_again_with_a_communicator_that_was_recreated(tmp_path: Path) -> None:
    program = TWICE + "group.generation = 1\nwith pool.use(group):\n    pass\n"
    assert used("vllm", program, tmp_path).count("Registered") == 5


def test_an_engine_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="package 'vllm' is not installed"):
        used("sglang", "from examples.engines.vllm import Pool\nPool(None)\n", tmp_path)


@pytest.mark.parametrize("name", ENGINES)
def test_an_adapter_is_observed_short_and_has_a_design_for_its_stand_in(name: str) -> None:
    pool = f"examples.engines.{name}:Pool"
    assert observed(pool)[pool] in POOLS
    assert len(Path("examples", "engines", f"{name}.py").read_text().splitlines()) <= LONGEST


# pools that register through PyTorch's process groups


class Backend:
    """A ProcessGroupNCCL that notes what is registered."""

    def __init__(self, said: list[str]) -> None:
        self._said = said

    def _comm_ptr(self) -> int:
        return 0xBEEF

    def register_mem_pool(self, pool: object, symm: bool) -> None:
        self._said.append(f"register {symm}")

    def deregister_mem_pool(self, pool: object) -> None:
        self._said.append("deregister")


class MemPool:
    def __init__(self, allocator: object) -> None: ...

    def snapshot(self) -> list[object]:
        return [self]


class Backends:
    """In place of the harness's: one backend for each group."""

    def __init__(self, device: object, leave: Any) -> None:
        self._leave, self.said = leave, list[str]()
        self._backend = Backend(self.said)

    def of(self, group: object) -> Backend:
        return self._backend

    def close(self) -> None:
        self._leave(GROUP.id, self._backend)


GROUP: Any = SimpleNamespace(id=GroupId((0, 1)), ranks=(0, 1), name="tp[0,1]", generation=0)


class Used:
    """`torch.cuda.use_mem_pool`, without a GPU."""

    def __init__(self, pool: object) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_pytorchs_pool_is_registered_once_and_deregistered_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    module = examples.engines.pytorch
    monkeypatch.setattr(module, "Backends", Backends)
    monkeypatch.setattr(module, "allocator", lambda: None)
    monkeypatch.setattr(module.torch.cuda, "MemPool", MemPool)
    monkeypatch.setattr(module.torch.cuda, "use_mem_pool", Used)
    pool: Any = module.Pool(SimpleNamespace(device=None))  # type: ignore[arg-type]
    for _ in range(2):
        with pool.use(GROUP):
            pass
    pool.close()
    assert (pool.comm_ptr(GROUP), pool.backends.said) == (0xBEEF, ["register True", "deregister"])


def test_megatrons_pool_reaches_the_groups_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        """As the engine's context: deregisters on entering, registers on leaving."""

        def __init__(self, pool: MemPool, group: Any) -> None:
            self._pool, self._backend = pool, group._get_backend(None)

        def __enter__(self) -> None:
            self._backend.deregister_mem_pool(self._pool)

        def __exit__(self, *_: object) -> None:
            self._backend.register_mem_pool(self._pool, symm=True)

    engine = SimpleNamespace(
        _build_nccl_allocator=lambda: None,
        create_nccl_mem_pool=MemPool,
        nccl_mem=Memory,
        deregister_mem_pool=lambda pool, group: group._get_backend(None).deregister_mem_pool(pool),
    )
    module = examples.engines.megatron
    monkeypatch.setattr(module, "Backends", Backends)
    monkeypatch.setattr(module.Package, "load", lambda self, name: engine)
    pool: Any = module.Pool(SimpleNamespace(device=None))  # type: ignore[arg-type]
    with pool.use(GROUP):
        pass
    pool.close()
    assert pool._backends.said == ["deregister", "register True", "deregister"]
