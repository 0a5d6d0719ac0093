"""Names of systems under test: what does not load is one sentence that says why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.errors import PluginError
from harness.system import loading
from harness.system.loading import load_attribute

KNOWN = ("per-group", "deferred")


def test_an_attribute_is_found_by_module_and_name() -> None:
    assert load_attribute("pool", "pathlib:Path", KNOWN) is Path


def test_a_name_without_a_module_is_refused_with_the_names_that_are_built_in() -> None:
    with pytest.raises(PluginError, match=r"^pool 'puddle' is neither per-group, deferred nor of the form package"):
        load_attribute("pool", "puddle", KNOWN)


def test_a_name_that_is_almost_built_in_gets_a_suggestion() -> None:
    with pytest.raises(PluginError, match=r"; did you mean per-group\?$"):
        load_attribute("pool", "pergroup", KNOWN)


@pytest.mark.parametrize("path", ["mine.py", "kernels/mine.py", "./mine", "/home/me/mine.py"])
def test_a_file_is_refused_with_the_name_of_its_module(path: str) -> None:
    with pytest.raises(PluginError, match=rf"^pool '{path}:Pool' names a file, .*: mine:Pool, with the file in the "):
        load_attribute("pool", f"{path}:Pool", KNOWN)


def test_a_module_that_lacks_the_attribute_is_refused_with_both() -> None:
    with pytest.raises(PluginError, match=r"^pool 'pathlib:Pool': module 'pathlib' has no 'Pool'$"):
        load_attribute("pool", "pathlib:Pool", KNOWN)


def test_a_module_that_is_not_there_is_refused_with_the_places_searched() -> None:
    with pytest.raises(PluginError, match=f"does not import: ModuleNotFoundError: .* in {Path.cwd()} or PYTHONPATH$"):
        load_attribute("pool", "no_such_module:Pool", KNOWN)


@pytest.mark.parametrize("body", ["raise ValueError('broken')", "raise SystemExit(3)"])
def test_a_module_that_raises_is_refused_with_what_it_raised(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_plugin.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=r"does not import: (ValueError: broken|SystemExit: 3)$"):
        load_attribute("pool", "broken_plugin:Pool", KNOWN)


RAISING = {
    "class Odd(BaseException): pass\nraise Odd('so')": "Odd: so",
    "raise GeneratorExit": "GeneratorExit: ",
    "import os\nos.nothing": "AttributeError: module 'os' has no attribute 'nothing'",
    "class Mute(Exception):\n  def __str__(self): 1 / 0\nraise Mute": "Mute, whose text raises ZeroDivisionError",
    "def __getattr__(name): raise RuntimeError(name)": "RuntimeError: ",
}


@pytest.mark.parametrize("number", range(len(RAISING)))
def test_a_module_is_refused_whatever_it_raises(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body, said = [*RAISING.items()][number]
    (tmp_path / f"raising_plugin_{number}.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=re.escape(f"does not import: {said}")):
        load_attribute("pool", f"raising_plugin_{number}:Pool", KNOWN)


def test_ctrl_c_while_a_module_is_imported_is_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "interrupted_plugin.py").write_text("raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        load_attribute("pool", "interrupted_plugin:Pool", KNOWN)


def test_a_module_of_the_working_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin_of_the_directory.py").write_text("pool = 7")
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    monkeypatch.chdir(tmp_path)
    assert load_attribute("pool", "plugin_of_the_directory:pool", KNOWN) == 7


def test_plug_ins_are_looked_for_where_the_rank_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin_of_the_start.py").write_text("pool = 7")
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    monkeypatch.setattr(loading, "_fixed", [])
    monkeypatch.chdir(tmp_path)
    loading.stay()
    monkeypatch.chdir("/")
    assert load_attribute("pool", "plugin_of_the_start:pool", KNOWN) == 7
