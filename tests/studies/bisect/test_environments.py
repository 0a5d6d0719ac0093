"""An environment with one version of a package, laid over the present one, and gone afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import harness
from harness import interrupts
from harness.studies.bisect import environments
from harness.studies.bisect.environments import NotInstalled, environment, install, names, scratch
from harness.studies.bisect.versions import Source
from tests.tools.libraries import nccl
from tests.tools.wheels import pools, wheel

ASKS_NCCL = """
import ctypes
number = ctypes.c_int()
ctypes.CDLL("libnccl.so.2").ncclGetVersion(ctypes.byref(number))
print(number.value)
"""


def run(code: str, places: list[Path]) -> str:
    """What a process in the environment of folders prints."""
    command = [sys.executable, "-P", "-c", code]
    return subprocess.run(command, env=environment(places), capture_output=True, text=True, check=True).stdout.strip()


def installed(folder: Path, name: str, version: str, *along: str) -> list[Path]:
    return install(name, version, Source(folder / "wheels"), folder, along)


def test_a_version_comes_before_the_one_that_is_installed(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "filelock", "1.5", {"filelock/__init__.py": "here = True"})
    place = installed(tmp_path, "filelock", "1.5")
    asks = "import filelock; from importlib.metadata import version; print(filelock.here, version('filelock'))"
    assert run(asks, place) == "True 1.5"


def test_all_other_packages_are_those_that_are_there(tmp_path: Path) -> None:
    pools(tmp_path / "wheels", {"1.0": ""})
    asks = "import harness, msgspec; print(harness.__file__, msgspec.__file__)"
    found = run(asks, installed(tmp_path, "brokenpool", "1.0")).split()
    assert found == [harness.__file__, msgspec.__file__]


def test_what_a_version_depends_on_is_not_installed(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "engine", "1.0", {"engine.py": ""}, requires=("there-is-no-such-package>=7",))
    assert names(installed(tmp_path, "engine", "1.0")) == {"engine"}


def test_a_dependency_that_is_named_comes_in_the_version_asked_for(tmp_path: Path) -> None:
    for version in ("3.7", "3.8", "3.9"):
        wheel(tmp_path / "wheels", "compiler", version, {"compiler.py": f"version = {version!r}"})
    needs = ("Compiler==3.8 ; python_version >= '3'", "compiler==3.7 ; python_version < '3'", "absent")
    wheel(tmp_path / "wheels", "engine", "1.0", {"engine.py": ""}, requires=needs)
    places = installed(tmp_path, "engine", "1.0", "compiler", "not-asked-for")
    assert run("import engine, compiler; print(compiler.version)", places) == "3.8"


def test_an_nccl_that_comes_along_is_loaded_too(tmp_path: Path) -> None:
    built = nccl(tmp_path / "built", 22907).read_bytes()
    wheel(tmp_path / "wheels", "nvidia_nccl_cu13", "2.29.7", {"nvidia/nccl/lib/libnccl.so.2": built})
    needs = ("nvidia-nccl-cu13==2.29.7",)
    wheel(tmp_path / "wheels", "engine", "1.0", {"nvidia/engine.py": ""}, requires=needs)
    places = installed(tmp_path, "engine", "1.0", "nvidia-nccl-cu13")
    assert run(f"import nvidia.engine\n{ASKS_NCCL}", places) == "22907"


def test_a_dependency_that_is_not_there_is_a_version_not_installed(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "engine", "1.0", {"engine.py": ""}, requires=("compiler==3.8",))
    with pytest.raises(NotInstalled, match="No matching distribution found for compiler"):
        installed(tmp_path, "engine", "1.0", "compiler")


def test_a_version_that_is_not_there_says_so(tmp_path: Path) -> None:
    pools(tmp_path / "wheels", {"1.0": ""})
    with pytest.raises(NotInstalled, match="No matching distribution found for brokenpool"):
        installed(tmp_path, "brokenpool", "2.0")


def test_a_source_archive_is_not_installed(tmp_path: Path) -> None:
    pools(tmp_path / "wheels", {"1.0": ""})
    (tmp_path / "wheels" / "brokenpool-1.1.tar.gz").write_bytes(b"")
    with pytest.raises(NotInstalled, match="No matching distribution found for brokenpool"):
        installed(tmp_path, "brokenpool", "1.1")


def test_a_damaged_wheel_is_not_installed(tmp_path: Path) -> None:
    folder = pools(tmp_path / "wheels", {"1.0": ""})
    next(folder.glob("*.whl")).write_bytes(b"PK no")
    with pytest.raises(NotInstalled, match=r"pip: .*brokenpool"):
        installed(tmp_path, "brokenpool", "1.0")


def with_nccl(folder: Path, version: int) -> list[Path]:
    """The folders of a package that brings an NCCL."""
    built = nccl(folder / "built", version).read_bytes()
    wheel(folder / "wheels", "nvidia_nccl_cu13", "2.32.3", {"nvidia/nccl/lib/libnccl.so.2": built})
    return installed(folder, "nvidia-nccl-cu13", "2.32.3")


def test_an_nccl_in_it_is_the_one_that_a_process_loads(tmp_path: Path) -> None:
    assert run(ASKS_NCCL, with_nccl(tmp_path, 23203)) == "23203"


def test_an_nccl_that_is_preloaded_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = nccl(tmp_path / "other", 22809)
    monkeypatch.setenv("LD_PRELOAD", f"libm.so.6 {other}")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(other.parent))
    (place,) = with_nccl(tmp_path, 23203)
    assert run(ASKS_NCCL, [place]) == "23203"
    maps = run("print(open('/proc/self/maps').read())", [place])
    assert (str(other) in maps, "libm.so.6" in maps, str(place) in maps) == (False, True, True)


def test_without_an_nccl_nothing_is_preloaded(tmp_path: Path) -> None:
    pools(tmp_path / "wheels", {"1.0": ""})
    found = environment(installed(tmp_path, "brokenpool", "1.0"))
    assert found["SYMM_LAUNCH"] == "off", "or it would be a task of this one's launch"
    assert found.get("LD_PRELOAD") == os.environ.get("LD_PRELOAD")


def test_names_are_those_of_packages_and_modules(tmp_path: Path) -> None:
    for path in ("bin/tool", "engine/__init__.py", "one.py", "two.cpython-311.so", "engine-1.dist-info/METADATA"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("")
    assert names([tmp_path]) == {"engine", "one", "two"}


def fails_in(made: list[Path]) -> None:
    """Fail while the folder is used."""
    with scratch() as folder:
        made.append(folder)
        folder.mkdir()


def test_the_folder_goes_also_where_its_user_fails() -> None:
    made: list[Path] = []
    with pytest.raises(FileExistsError):
        fails_in(made)
    assert not made[0].exists()


def test_a_signal_while_the_folder_is_made_leaves_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def pressed() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(interrupts, "check", pressed)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(KeyboardInterrupt), scratch():
        pass
    assert list(tmp_path.iterdir()) == []


def test_pips_own_temporary_files_are_below_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pools(tmp_path / "wheels", {"1.0": ""})
    asked: list[object] = []
    monkeypatch.setattr(Source, "pip", lambda self, *words, scratch=None: asked.append(scratch) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        install("brokenpool", "1.0", Source(tmp_path / "wheels"), tmp_path)
    assert asked == [tmp_path / "pip"]
    assert environments.NCCL == "libnccl.so.2"
