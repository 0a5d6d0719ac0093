"""The wheel installs `harness` alone, and an installed harness finds its kernels, topologies and seeds."""

from __future__ import annotations

import zipfile

import pytest

from tests.tools.installed import ROOT, STAND_IN, Built, Environment

SEED = "wrong-owner-of-a-shared-pool"


def test_harness_alone_is_installed(built: Built) -> None:
    assert {name.partition("/")[0] for name in built.in_wheel()} == {"harness"}
    with zipfile.ZipFile(built.wheel) as file:
        top_level = next(name for name in file.namelist() if name.endswith("top_level.txt"))
        assert file.read(top_level).split() == [b"harness"]


@pytest.mark.parametrize(
    "pattern",
    ["kernels/*.py", "kernels/cuda/*.py", "kernels/cuda/*.cu*", "topologies/*.json", "topologies/seeds/*.json"],
)
def test_what_the_package_reaches_through_links_is_in_the_wheel(built: Built, pattern: str) -> None:
    shipped = {f"harness/{path.relative_to(ROOT)}" for path in ROOT.glob(pattern)}
    assert shipped
    assert shipped <= built.in_wheel()


def test_the_wheel_holds_every_module_and_the_mark_of_a_typed_package(built: Built) -> None:
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "harness").rglob("*.py")}
    assert modules | {"harness/py.typed"} <= built.in_wheel()


def test_the_wheel_holds_the_sources_that_are_compiled_when_needed(built: Built) -> None:
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "harness" / "machine").rglob("*.[ch]")}
    assert {"harness/machine/profiler.c", "harness/machine/observer/observer.h"} <= sources
    assert sources <= built.in_wheel()


def test_the_wheel_holds_the_templates_of_pages(built: Built) -> None:
    folder = ROOT / "harness" / "report" / "pages" / "templates"
    templates = {str(path.relative_to(ROOT)) for path in folder.iterdir()}
    assert {path.rpartition(".")[2] for path in templates} == {"html", "css"}
    assert templates <= built.in_wheel()


def test_the_source_archive_holds_the_files_of_the_wheel(built: Built) -> None:
    assert built.in_sdist() == built.in_wheel()


def test_the_wheel_carries_the_license(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as file:
        text = next(name for name in file.namelist() if name.endswith("licenses/LICENSE"))
        assert file.read(text) == (ROOT / "LICENSE").read_bytes()


def test_a_package_named_kernels_stays_what_it_was(environment: Environment) -> None:
    folder = environment.packages() / "kernels"
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"__init__.py": STAND_IN}
    imported = environment.run(environment.python, "-c", "import kernels; print(kernels.__file__, kernels.layers)")
    assert imported.stdout.split() == [str(folder / "__init__.py"), "1"], imported.stderr


def test_the_installed_harness_is_the_one_that_runs(environment: Environment) -> None:
    imported = environment.run(environment.python, "-c", "import harness; print(harness.__file__)")
    assert imported.stdout.strip() == str(environment.packages() / "harness" / "__init__.py"), imported.stderr


def test_an_installed_harness_lists_the_topologies(environment: Environment) -> None:
    listed = environment.run("symm", "topologies")
    assert listed.returncode == 0, listed.stderr
    shipped = {path.stem for path in (ROOT / "topologies").glob("*.json")}
    assert shipped <= set(listed.stdout.split())


def test_an_installed_harness_runs_its_own_kernels(environment: Environment) -> None:
    asked = ("--draws", "5", "--collectives", "triton", "--substrate", "sim", "--world", "2")
    fuzzed = environment.run("symm", "fuzz", *asked)
    assert fuzzed.returncode == 0, fuzzed.stdout + fuzzed.stderr
    assert "5 draws" in fuzzed.stdout


def test_an_installed_harness_draws_the_page_of_a_seed(environment: Environment) -> None:
    shown = environment.run("symm", "show", SEED, "--no-run", "--html", "-")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stdout.startswith("<!DOCTYPE html>")


def test_an_installed_harness_replays_a_shipped_seed_by_name(environment: Environment) -> None:
    replayed = environment.run("symm", "replay", SEED, "--substrate", "sim")
    assert replayed.returncode == 1, replayed.stdout + replayed.stderr
    assert "wrong-owner" in replayed.stdout
