"""The observer is compiled once for each NCCL, kept, and refused with the reason where that cannot be."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from harness.errors import MachineError
from harness.machine.observer import build
from harness.machine.observer.build import environment, library, real_nccl
from harness.machine.observer.elf import defined
from harness.machine.observer.records import read_all
from harness.machine.profiler import VARIABLE
from tests.tools.fake_libnccl import compiled, fake_nccl, observed, plain, python, run


def test_it_is_compiled_once_and_kept() -> None:
    made = library(fake_nccl())
    before = made.stat().st_ino
    build._library.cache_clear()
    assert library(fake_nccl()) == made
    assert made.stat().st_ino == before


def test_nothing_but_the_library_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = library(fake_nccl())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [made]


def test_it_is_kept_in_the_home_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert library(fake_nccl()).parent == tmp_path / ".cache" / "symm-harness"


def test_every_nccl_has_one_of_its_own(tmp_path: Path) -> None:
    other = shutil.copy(fake_nccl(), tmp_path / "libnccl.so.2")
    assert library(Path(other)) != library(fake_nccl())


def test_processes_that_compile_at_the_same_time_get_a_whole_library(tmp_path: Path) -> None:
    imports = "from harness.machine.observer.build import library; from pathlib import Path"
    program = f"{imports}; print(library(Path({str(fake_nccl())!r})))"
    variables = plain(tmp_path, {"XDG_CACHE_HOME": str(tmp_path)})
    several = [
        subprocess.Popen([sys.executable, "-c", program], env=variables, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    paths = {process.communicate()[0].strip() for process in several}
    assert len(paths) == 1
    assert "ncclAllGather" in defined(Path(paths.pop()))


OLD = "int pncclMemAlloc(void **address, long size) { return 0; } int pncclAllGather(void) { return 0; }"


def test_it_offers_no_function_that_nccl_lacks(tmp_path: Path) -> None:
    names = defined(library(compiled(OLD, tmp_path, "-shared", "-fPIC")))
    assert {name for name in names if name.startswith("nccl")} == {"ncclMemAlloc", "ncclAllGather", "ncclProfiler_v7"}


def test_its_own_functions_stay_inside(tmp_path: Path) -> None:
    names = defined(library(fake_nccl()))
    twins = {f"{name}_ptsz" for name in build.ON_STREAMS}
    cudart = {*build.ON_GRAPHS, *build.ON_STREAMS, *twins}
    assert {name for name in names if not name.startswith(("nccl", "symm_"))} == cudart


@pytest.mark.parametrize("folder", ["with space", "with,comma", 'with"quote', "with\\backslash", "wïth"])
def test_an_nccl_may_lie_in_any_folder(folder: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    real = Path(shutil.copy(fake_nccl(), tmp_path / folder / "libnccl.so.2"))
    run(python("Nccl().world()"), observed(tmp_path, tmp_path / "out") | environment(tmp_path / "out", real))
    (process,) = read_all(tmp_path / "out")
    assert process.real == str(real)


def test_a_machine_without_a_compiler_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match=r"^no C compiler is on the PATH \(cc, gcc, clang\)$"):
        library(fake_nccl())


def test_a_compiler_that_fails_is_named_with_what_it_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no headers >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(MachineError, match=r"broken failed on .*: no headers"):
        library(fake_nccl())


def test_a_library_that_is_no_nccl_is_refused(tmp_path: Path) -> None:
    other = compiled("int other(void) { return 0; }", tmp_path, "-shared", "-fPIC")
    with pytest.raises(MachineError, match=r"program is no NCCL: it has no function that begins with pnccl"):
        library(other)


def test_a_cache_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(MachineError, match=r"the observer cannot be kept in .*/file/symm-harness: Not a directory"):
        library(fake_nccl())


def test_a_cache_that_the_loader_cannot_be_told_of_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a b"))
    with pytest.raises(MachineError, match=r"LD_PRELOAD cannot name .*a b.*: set XDG_CACHE_HOME"):
        environment(None, fake_nccl())


def test_a_process_gets_the_library_and_the_folder(tmp_path: Path) -> None:
    made = str(library(fake_nccl()))
    expected = {"LD_PRELOAD": made, "SYMM_OBSERVER_OUT": str(tmp_path), "NCCL_PROFILER_PLUGIN": made}
    assert environment(tmp_path, fake_nccl()) == expected


def test_a_folder_is_named_from_the_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert environment(Path("out"), fake_nccl())[build.OUT] == str(tmp_path / "out")


def test_without_a_folder_nothing_is_to_be_written() -> None:
    assert build.OUT not in environment(None, fake_nccl())


def test_what_was_preloaded_stays_behind_it_and_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = str(library(fake_nccl()))
    monkeypatch.setenv(build.PRELOAD, f"/one.so:{made} /two.so")
    assert environment(None, fake_nccl())[build.PRELOAD] == f"{made} /one.so /two.so"


def test_a_plug_in_that_the_user_named_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "inspector")
    assert VARIABLE not in environment(None, fake_nccl())


def test_an_nccl_that_is_preloaded_is_the_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.PRELOAD, f"/other.so:{fake_nccl()}")
    assert real_nccl() == fake_nccl()


def test_the_nccl_of_the_package_is_the_real_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    real = Path(shutil.copy(fake_nccl(), tmp_path / "lib" / "libnccl.so.2"))
    spec = ModuleSpec("nvidia.nccl", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert real_nccl() == real


def test_the_nccl_of_the_loader_is_the_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fake_nccl().parent))
    assert real_nccl().samefile(fake_nccl())


def test_a_machine_without_nccl_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(build, "_loaded", lambda: None)
    with pytest.raises(MachineError, match=r"no NCCL is installed: neither the package nvidia.nccl nor the loader has"):
        real_nccl()


def test_asking_for_nccl_loads_none_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fake_nccl().parent))
    real_nccl()
    assert str(fake_nccl()) not in Path(f"/proc/{os.getpid()}/maps").read_text()
