"""Files of an installed package, executed anew without the package; libraries that are built once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils import cpp_extension

from harness.errors import PluginError
from harness.scenario.layouts.groups import GroupId
from harness.substrate.nccl import linking
from harness.system import released
from harness.system.executed import forget
from harness.system.released import Backends, Package, building

ALLOCATOR = """
from engine.settings import size
from engine.parts.shapes import doubled

held = []


def take():
    held.append(doubled(size))
    return held
"""
SHAPES = "import engine.settings as settings\n\n\ndef doubled(size):\n    return 2 * size + settings.spare\n"
STAND_INS = {"engine.settings": {"size": 3, "spare": 1}}


@pytest.fixture(autouse=True)
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that no machine can import, and two of its files."""
    folder = tmp_path / "engine"
    (folder / "parts").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('needs a GPU')")
    (folder / "allocator.py").write_text(ALLOCATOR)
    (folder / "parts" / "shapes.py").write_text(SHAPES)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def load() -> Any:
    package = Package(STAND_INS)
    package.load("engine.parts.shapes")
    return package.load("engine.allocator")


def test_a_file_is_executed_without_its_package_and_finds_what_stands_in() -> None:
    assert load().take() == [7]


def test_a_file_is_executed_anew_for_each_draw() -> None:
    load().take()
    assert load().held == []


def test_nothing_of_a_package_stays_among_the_imported_modules() -> None:
    before = dict(sys.modules)
    load()
    assert {name for name in sys.modules.keys() - before.keys() if name.startswith("engine")} == set()


def test_an_imported_package_is_there_again_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = SimpleNamespace(size=100)
    monkeypatch.setitem(sys.modules, "engine.settings", imported)
    assert (load().take(), sys.modules["engine.settings"]) == ([7], imported)


def test_after_a_draw_a_file_holds_nothing_whoever_holds_a_function_of_it() -> None:
    module = load()
    take = module.take
    forget()
    assert (vars(module), take.__globals__) == ({}, {})


def test_a_name_that_nothing_stands_in_for_is_named() -> None:
    with pytest.raises(ImportError, match=r"cannot import name 'size' from 'engine\.settings'"):
        Package({"engine.settings": {}}).load("engine.allocator")


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(PluginError, match=r"^package 'puddle' is not installed$"):
        Package({}).load("puddle.allocator")


def test_a_file_that_a_release_lacks_is_named() -> None:
    with pytest.raises(PluginError, match=r"^package 'engine' has no parts/pools\.py$"):
        Package({}).load("engine.parts.pools")


# libraries


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """A compiler's environment at each build."""
    seen: list[dict[str, str]] = []

    def load_inline(name: str, *, build_directory: str, **given: Any) -> None:
        seen.append(dict(os.environ))
        Path(build_directory, f"{name}.so").write_text(given["cpp_sources"])

    monkeypatch.setattr(cpp_extension, "load_inline", load_inline)
    monkeypatch.setattr(linking, "variables", lambda: {"LIBRARY_PATH": "/where/nccl/is"})
    return seen


def build(folder: Path, sources: str = "void *take();", **given: Any) -> Any:
    with building():
        call: Callable[..., Any] = cpp_extension.load_inline
        return call(name="taker", cpp_sources=sources, build_directory=str(folder), is_python_module=False, **given)


def test_a_library_is_built_once_where_the_compiler_finds_nccl(tmp_path: Path, built: list[dict[str, str]]) -> None:
    paths = [build(tmp_path, verbose=verbose) for verbose in (True, False)]
    assert (paths, [each["LIBRARY_PATH"] for each in built]) == ([str(tmp_path / "taker.so")] * 2, ["/where/nccl/is"])
    assert os.environ.get("LIBRARY_PATH") != "/where/nccl/is"


def test_a_library_of_other_sources_or_flags_is_built_again(tmp_path: Path, built: list[dict[str, str]]) -> None:
    build(tmp_path)
    build(tmp_path, "void *give();")
    build(tmp_path, "void *give();", extra_ldflags=["-lnccl"])
    assert len(built) == 3


def test_a_build_that_failed_is_tried_again(
    tmp_path: Path, built: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    works = cpp_extension.load_inline
    monkeypatch.setattr(cpp_extension, "load_inline", lambda **_: (_ for _ in ()).throw(RuntimeError("no compiler")))
    with pytest.raises(RuntimeError, match="no compiler"):
        build(tmp_path)
    monkeypatch.setattr(cpp_extension, "load_inline", works)
    build(tmp_path)
    assert len(built) == 1


def test_an_engine_may_remove_a_lock_of_torch_while_another_process_builds(
    tmp_path: Path, built: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    works = cpp_extension.load_inline

    def load_inline(*, build_directory: str, **given: Any) -> None:
        lock = Path(build_directory, "lock")  # torch's: made before a build, removed after it
        lock.touch(exist_ok=False)
        (tmp_path / "lock").unlink(missing_ok=True)  # another process, which takes it for a leftover
        works(build_directory=build_directory, **given)
        lock.unlink()

    monkeypatch.setattr(cpp_extension, "load_inline", load_inline)
    build(tmp_path)
    assert len(built) == 1


def test_a_lock_that_a_killed_process_left_holds_nobody_up(
    tmp_path: Path, built: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    works = cpp_extension.load_inline

    def killed(*, build_directory: str, **_: Any) -> None:
        Path(build_directory, "lock").touch()
        raise KeyboardInterrupt

    def load_inline(*, build_directory: str, **given: Any) -> None:
        Path(build_directory, "lock").touch(exist_ok=False)
        works(build_directory=build_directory, **given)

    monkeypatch.setattr(cpp_extension, "load_inline", killed)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path)
    monkeypatch.setattr(cpp_extension, "load_inline", load_inline)
    build(tmp_path)
    assert len(built) == 1


def test_torch_builds_as_before_once_the_engine_is_loaded() -> None:
    before = cpp_extension.load_inline
    with building():
        assert cpp_extension.load_inline is not before
    assert cpp_extension.load_inline is before


def test_a_compiler_finds_nccl_that_has_no_library_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, header = tmp_path / "nccl" / "lib" / "libnccl.so.2", tmp_path / "nccl" / "include" / "nccl.h"
    for path in (real, header):
        path.parent.mkdir(parents=True)
        path.touch()
    monkeypatch.setattr(linking, "real_nccl", lambda: real)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LIBRARY_PATH", "/own")
    monkeypatch.delenv("CPATH", raising=False)
    for _ in range(2):
        found = linking.variables()
        folder, own = found["LIBRARY_PATH"].split(":")
        assert (Path(folder, "libnccl.so").resolve(), own, found["CPATH"]) == (real, "/own", str(header.parent))


# process groups


class FakeBackend:
    """A ProcessGroupNCCL that notes its end."""

    Options = SimpleNamespace

    def __init__(self, store: str, rank: int, size: int, options: object) -> None:
        self.store, self.ended = store, False

    def eager_connect_single_device(self, device: torch.device) -> None: ...

    def shutdown(self) -> None:
        self.ended = True


class Group:
    """A group of two, whose ranks agree with rank 0."""

    id = GroupId((0, 1))
    ranks, rank, generation = (0, 1), 0, 0

    def exchange(self, word: int) -> list[int]:
        assert -(1 << 63) <= word < 1 << 63
        return [word, word + 1]


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[tuple[GroupId, bool]]:
    """Groups that were left, and whether their backend had ended by then."""
    monkeypatch.setattr(released.distributed, "ProcessGroupNCCL", FakeBackend, raising=False)
    monkeypatch.setattr(released.distributed, "FileStore", lambda path, size: path, raising=False)
    return []


def test_a_group_has_one_backend_until_its_communicator_is_recreated(left: list[tuple[GroupId, bool]]) -> None:
    backends = Backends(torch.device("cpu"), lambda ident, backend: left.append((ident, backend.ended)))
    group: Any = Group()
    first = backends.of(group)
    assert backends.of(group) is first
    group.generation = 1
    second = backends.of(group)
    assert (first.ended, second.ended, first.store != second.store, left) == (True, False, True, [(Group.id, False)])
    backends.close()
    assert (second.ended, len(left)) == (True, 2)


def test_nothing_of_torchs_builder_is_imported_for_a_pool_that_builds_nothing() -> None:
    check = "import sys, harness.system.context, harness.rank.server; print('torch.utils.cpp_extension' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", check], text=True) == "False\n"
