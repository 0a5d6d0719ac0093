"""The named system under test: what is built in is known without loading it."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

import harness
from harness.errors import PluginError
from harness.system import check as systems
from harness.system import collectives
from harness.system.pools import built_in as pools


def test_built_in_names_are_those_that_can_be_loaded() -> None:
    assert {*pools.BUILT_IN} == {*systems.POOLS}
    assert {*collectives.BUILT_IN} == {*systems.KERNELS}


def test_checking_what_is_built_in_does_not_import_torch() -> None:
    check = "import sys; from harness.system.check import check_system; check_system('deferred', 'triton')"
    shown = subprocess.check_output([sys.executable, "-c", f"{check}; print('torch' in sys.modules)"], text=True)
    assert shown == "False\n"


def test_the_operations_of_a_plug_in_are_those_that_it_makes() -> None:
    assert (systems.made(None), systems.made("triton")) == (None, None)
    simple = systems.made("tests.system.test_splits:Simple")
    assert simple == {"all_gather", "reduce_scatter", "all_to_all"}


@pytest.mark.parametrize("names", [("puddle", None), (None, "kettle"), ("deferred", "kettle")])
def test_an_unknown_name_is_refused(names: tuple[str | None, str | None]) -> None:
    with pytest.raises(PluginError, match=r"puddle|kettle"):
        systems.check_system(*names)


def test_what_a_plug_in_prints_when_it_is_imported_goes_to_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talkative.py").write_text("print('hello')\nclass Pool:\n    def use(self, group): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    with suppress(PluginError):
        systems.check_system("talkative:Pool", None)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "hello\n")


# what a run pays that uses nothing of it

HEAVY = "torch", "hypothesis", "rich", "harness.world.world"
LIGHT = f"import sys, harness.plugin; print(*(sys.modules.keys() & {{*{HEAVY}}}))"


def test_the_plugin_of_pytest_is_light_to_import() -> None:
    run = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


@pytest.mark.parametrize("name", harness.__all__)
def test_what_the_package_lists_is_there_and_no_module_hides_it(name: str) -> None:
    assert not isinstance(getattr(harness, name), ModuleType)
    assert name not in {module.name for module in pkgutil.iter_modules(harness.__path__)}
    assert name in dir(harness)


def test_what_the_package_does_not_list_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'harness' has no attribute 'puddle'"):
        _ = harness.puddle


class NeverClosed:
    def __init__(self, context: object) -> None: ...

    def use(self, group: object) -> None: ...


def test_a_pool_without_a_method_is_refused_before_ranks_start() -> None:
    with pytest.raises(PluginError, match=r"pool 'tests\.system\.test_check:NeverClosed' has no method 'close'"):
        systems.check_system("tests.system.test_check:NeverClosed", None)


def test_a_plug_in_that_changes_the_working_directory_leaves_the_commands_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "goes_elsewhere.py").write_text(
        "import os\nos.chdir('/')\nfrom tests.tools.planted import Sound as Pool\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = Path.cwd()
    systems.check_system("goes_elsewhere:Pool", None)
    assert Path.cwd() == before


def test_collectives_that_need_a_gpu_name_what_stands_in_for_them() -> None:
    mine = "examples.cuda_push:Pushes"
    assert systems.fallbacks(None, "library", "triton", "cuda", mine) == {"cuda": "triton", mine: "triton"}
    for name, instead in systems.KERNELS.items():
        assert collectives.fallback_of(collectives.find_collectives(name)) == instead


def test_on_the_simulation_what_stands_in_is_run() -> None:
    for name in ("cuda", "examples.cuda_push:Pushes"):
        assert collectives.find_collectives(name, is_simulated=True) is collectives.TritonCollectives
        assert collectives.find_collectives(name) is not collectives.TritonCollectives
