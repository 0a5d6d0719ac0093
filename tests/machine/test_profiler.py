"""The profiler plug-in: compiled into memory, loaded by other processes, and refused with the reason."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import MachineError
from harness.machine import profiler
from tests.tools.nccl_events import COLLECTIVE, COPY_ENGINE, Player


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No other plug-in is named, and nothing is compiled yet."""
    monkeypatch.delenv(profiler.VARIABLE, raising=False)
    monkeypatch.delenv("CC", raising=False)
    profiler.library.cache_clear()
    yield
    profiler.library.cache_clear()


def test_it_asks_nccl_for_collectives_by_kernels_and_by_copy_engines_alone() -> None:
    assert Player(profiler.library()).mask.value == COLLECTIVE | COPY_ENGINE


def test_another_process_can_load_it_while_this_one_lives() -> None:
    load = f"import ctypes; print(ctypes.CDLL({profiler.library()!r}).symm_calls_written())"
    assert subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, check=True).stdout == "0\n"


def test_it_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert ctypes.CDLL(profiler.library()) is not None
    assert list(tmp_path.iterdir()) == []


def test_it_is_compiled_once_a_process() -> None:
    assert profiler.library() == profiler.library()


def test_a_machine_without_a_compiler_lacks_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert profiler.why_missing() == "no C compiler is on the PATH (cc, gcc, clang)"


def test_a_compiler_that_fails_is_named_with_what_it_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho no headers >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    assert profiler.why_missing() == f"{compiler} failed on profiler.c: no headers"
    with pytest.raises(MachineError, match="no headers"):
        profiler.library()


def test_a_machine_without_a_temporary_directory_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: ["/nowhere"])
    missing = "NCCL's profiler plug-in cannot be built: No usable temporary directory found in ['/nowhere']"
    assert profiler.why_missing() == missing


def test_a_plug_in_that_the_user_named_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(profiler.VARIABLE, "inspector")
    assert profiler.why_missing() == "NCCL_PROFILER_PLUGIN names another plug-in, 'inspector'"
