"""The versions that pip can install here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.errors import MachineError, UsageError
from harness.studies.bisect import versions
from harness.studies.bisect.children import Ended
from harness.studies.bisect.versions import Source, available, between, distribution
from tests.tools.wheels import pools, wheel


def test_versions_of_a_folder_come_oldest_first(tmp_path: Path) -> None:
    pools(tmp_path, dict.fromkeys(("1.10", "1.9", "1.9.post1", "0.7"), ""))
    assert available("brokenpool", Source(tmp_path)) == ["0.7", "1.9", "1.9.post1", "1.10"]


def test_pre_releases_come_only_when_asked_for(tmp_path: Path) -> None:
    pools(tmp_path, dict.fromkeys(("1.0", "1.1rc1", "1.1.dev3", "1.2"), ""))
    assert available("brokenpool", Source(tmp_path)) == ["1.0", "1.2"]
    assert available("brokenpool", Source(tmp_path, True)) == ["1.0", "1.1.dev3", "1.1rc1", "1.2"]


def test_wheels_of_another_python_are_left_out(tmp_path: Path) -> None:
    wheel(tmp_path, "engine", "1.0", {})
    wheel(tmp_path, "engine", "2.0", {}, "cp27-cp27m-win32")
    assert available("engine", Source(tmp_path)) == ["1.0"]


def test_with_a_folder_no_other_place_of_pips_configuration_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools(tmp_path / "elsewhere", {"2.0": ""})
    pools(tmp_path / "here", {"1.0": ""})
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "elsewhere"))
    assert available("brokenpool", Source(tmp_path / "here")) == ["1.0"]


def test_without_a_folder_pips_own_configuration_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pools(tmp_path, {"1.0": "", "2.0": ""})
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert available("brokenpool", Source()) == ["1.0", "2.0"]


def test_a_package_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{tmp_path} has no wheel of 'nowhere' that fits this Python: pip: No match"):
        available("nowhere", Source(tmp_path))


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--wheels .*gone: it is not a directory"):
        Source(tmp_path / "gone")


def test_a_python_without_pip_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(versions, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=f"needs pip, and {sys.executable} has none"):
        available("brokenpool", Source(tmp_path))


def test_a_module_of_the_working_directory_is_not_taken_for_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools(tmp_path, {"1.0": ""})
    (tmp_path / "pip.py").write_text("raise SystemExit('a file in the way')")
    monkeypatch.chdir(tmp_path)
    assert available("brokenpool", Source(Path())) == ["1.0"]


@pytest.mark.parametrize(("name", "meant"), [("NVIDIA_nccl.cu13", "nvidia-nccl-cu13"), ("torch", "torch")])
def test_a_package_is_named_as_indexes_do(name: str, meant: str) -> None:
    assert distribution(name) == meant


@pytest.mark.parametrize("name", ["torch==2.13", "-r", "./torch", "", "torch[all]", "https://x.example/a.whl"])
def test_what_is_no_package_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"--over .* it is not the name of a package"):
        distribution(name)


KNOWN = ["2.27.7", "2.28.3", "2.28.9", "2.30.7"]


@pytest.mark.parametrize(
    ("first", "last", "left"),
    [
        (None, None, KNOWN),
        ("2.28", None, KNOWN[1:]),
        (None, "2.28.9", KNOWN[:3]),
        ("2.28.3", "2.29", KNOWN[1:3]),
    ],
)
def test_limits_are_included_and_need_not_be_versions_that_there_are(
    first: str | None, last: str | None, left: list[str]
) -> None:
    assert between(KNOWN, first, last) == left


def test_a_local_version_counts_as_the_one_that_it_is_of() -> None:
    assert between(["2.12.0+cpu", "2.13.0+cpu", "2.14.1+cpu"], None, "2.13.0") == ["2.12.0+cpu", "2.13.0+cpu"]


@pytest.mark.parametrize(
    ("version", "found"),
    [("2.28.9", "2.28.9"), ("2.28.9+cu130", "2.28.9"), ("2.28", None), ("a build of mine", None), (None, None)],
)
def test_a_version_is_found_whatever_it_was_built_for(version: str | None, found: str | None) -> None:
    assert versions.among(KNOWN, version) == found


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        ("2.29", None, "--from 2.29 leaves only 2.30.7 of 2.27.7, "),
        ("2.28", "2.27", "--from 2.28 --to 2.27 leaves none of "),
    ],
)
def test_limits_that_leave_nothing_to_compare_are_refused(first: str, last: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=f"a change takes two versions, and {said}"):
        between(KNOWN, first, last)


def test_a_package_of_one_version_is_refused() -> None:
    with pytest.raises(UsageError, match=r"and there is only 1\.0"):
        between(["1.0"], None, None)


@pytest.mark.parametrize("option", ["--from", "--to"])
def test_a_limit_that_is_no_version_is_named(option: str) -> None:
    given = {"--from": ("latest", None), "--to": (None, "latest")}[option]
    with pytest.raises(UsageError, match=f"{option} 'latest': it is not a version"):
        between(KNOWN, *given)


@pytest.mark.parametrize(
    ("err", "why"),
    [
        ("WARNING: a\nERROR: one\nERROR: two\n", "pip: two"),
        ("Traceback\nKeyError: 'x'\n", "pip: KeyError: 'x'"),
        ("", "pip ended with status 3"),
    ],
)
def test_why_pip_failed_is_its_last_error(err: str, why: str) -> None:
    assert versions.error_of(Ended(3, "", err)) == why
