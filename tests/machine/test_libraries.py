"""Each libnccl of a process: path, version, package, and the one that an observer stands in front of."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from harness.errors import MachineError
from harness.machine import libraries
from harness.machine.libraries import Library, mapped, of_a_rank
from harness.machine.observer import build
from tests.tools.libraries import library, nccl

ASKS = """
import ctypes, sys, msgspec
from harness.machine.libraries import mapped
for path in sys.argv[1:]:
    ctypes.CDLL(path)
sys.stdout.buffer.write(msgspec.json.encode(mapped()))
"""


def of_a_process(loads: Sequence[Path] = (), preloads: Sequence[Path] = (), **environment: str) -> tuple[Library, ...]:
    """What a process has mapped that was started with some libraries and has loaded others."""
    own = {**os.environ, "LD_PRELOAD": ":".join(map(str, preloads)), **environment}
    command = [sys.executable, "-c", ASKS, *map(str, loads)]
    ended = subprocess.run(command, env=own, capture_output=True, check=True)
    return msgspec.json.decode(ended.stdout, type=tuple[Library, ...])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Observers are kept in the test's own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_process_without_nccl_has_none() -> None:
    assert of_a_process() == ()


def test_a_library_is_listed_with_its_version(tmp_path: Path) -> None:
    real = nccl(tmp_path, 22809)
    assert of_a_process([real]) == (Library(str(real), "2.28.9"),)


def test_libraries_of_one_name_are_told_apart(tmp_path: Path) -> None:
    first, second = nccl(tmp_path / "first", 22907), nccl(tmp_path / "second", 23203)
    found = {each.path: each.version for each in of_a_process([first], [second])}
    assert found == {str(first): "2.29.7", str(second): "2.32.3"}


def test_an_observer_is_known_by_its_marker_and_names_the_one_behind_it(tmp_path: Path) -> None:
    real = nccl(tmp_path / "real", 23203)
    shim = build.library(real)
    found = {each.path: each for each in of_a_process(preloads=[shim])}
    assert found.keys() == {str(real), str(shim)}
    assert (found[str(real)].is_observed, found[str(real)].is_observer) == (True, False)
    assert (found[str(shim)].is_observed, found[str(shim)].is_observer) == (False, True)


def test_an_observer_behind_a_link_names_the_file(tmp_path: Path) -> None:
    real = nccl(tmp_path / "real")
    (tmp_path / "link.so").symlink_to(build.library(real))
    found = {each.path for each in of_a_process(preloads=[tmp_path / "link.so"]) if each.is_observed}
    assert found == {str(real)}


def test_a_library_that_is_opened_by_path_beside_an_observer_is_not_observed(tmp_path: Path) -> None:
    real, other = nccl(tmp_path / "real"), nccl(tmp_path / "other", 22907)
    found = {each.path: each.is_observed for each in of_a_process([other], [build.library(real)])}
    assert (found[str(real)], found[str(other)]) == (True, False)


def test_a_library_that_needs_the_observer_is_none(tmp_path: Path) -> None:
    shim = build.library(nccl(tmp_path / "real"))
    user = library(tmp_path / "user", "", "-Wl,--no-as-needed", str(shim), name="libuser.so", soname="libuser.so")
    found = of_a_process([user], [shim])
    assert [each.path for each in found if each.is_observer] == [str(shim)]


def test_a_library_that_does_not_say_its_version_is_listed_without(tmp_path: Path) -> None:
    mute = library(tmp_path, "int ncclGetVersion(int *version) { return 5; }")
    silent = library(tmp_path / "silent", "")
    assert {each.version for each in of_a_process([mute, silent])} == {None}


def test_a_library_whose_file_is_gone_is_still_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = nccl(tmp_path)
    gone = libraries.Mapping(0x1000, 0x2000, f"{real} (deleted)")
    monkeypatch.setattr(libraries, "_mappings", lambda: iter([gone]))
    assert mapped() == (Library(f"{real} (deleted)"),)


def test_the_package_of_a_library_is_named_with_its_version(tmp_path: Path) -> None:
    place = tmp_path / "site" / "nvidia" / "nccl" / "lib"
    real = nccl(place, 23203)
    info = tmp_path / "site" / "nvidia_nccl_cu13-2.32.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nvidia-nccl-cu13\nVersion: 2.32.3\n")
    (found,) = of_a_process([real], PYTHONPATH=str(tmp_path / "site"))
    assert found.packages == ("nvidia-nccl-cu13 2.32.3",)
    (found,) = of_a_process([nccl(tmp_path / "other")], PYTHONPATH=str(tmp_path / "site"))
    assert found.packages == ()


# in a process with the imports of a rank


def test_a_process_with_a_ranks_imports_lists_what_is_preloaded(tmp_path: Path) -> None:
    real = nccl(tmp_path, 23203)
    assert of_a_rank({**os.environ, "LD_PRELOAD": str(real)}) == (Library(str(real), "2.32.3"),)


def test_the_library_that_nccl4py_loads_at_its_first_call_is_listed(tmp_path: Path) -> None:
    real = nccl(tmp_path, 23203)
    bindings = tmp_path / "nccl" / "bindings"
    bindings.mkdir(parents=True)
    for package in (bindings, bindings.parent):
        (package / "__init__.py").touch()
    loads = f"import ctypes\ndef get_version():\n    ctypes.CDLL({str(real)!r})\n    return 23203\n"
    (bindings / "nccl.py").write_text(loads)
    assert of_a_rank({**os.environ, "PYTHONPATH": str(tmp_path)}) == (Library(str(real), "2.32.3"),)


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: no such file')")
    with pytest.raises(MachineError, match=r"ImportError: libcudart\.so\.13: no such file"):
        of_a_rank({**os.environ, "PYTHONPATH": str(tmp_path)})


def test_a_process_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "SECONDS", 0.05)
    with pytest.raises(MachineError, match="importing torch took more than 0 s"):
        of_a_rank({**os.environ})
