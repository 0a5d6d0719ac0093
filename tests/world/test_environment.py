"""The environment of a result: versions of what is installed, and the substrate of the world that gave it."""

from __future__ import annotations

import platform
from importlib import metadata

import pytest

from harness.world.environment import PACKAGES, describe
from harness.world.world import World


def test_every_package_has_its_installed_version() -> None:
    found = describe()
    assert {name: found[name] for name in ("torch", "hypothesis")} == {
        name: metadata.version(name) for name in ("torch", "hypothesis")
    }
    assert found.keys() >= {*PACKAGES}


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.world.environment.PACKAGES", ("no-such-package",))
    assert describe()["no-such-package"] is None


def test_python_and_the_machine_are_named() -> None:
    found = describe()
    assert (found["python"], found["platform"]) == (
        platform.python_version(),
        f"{platform.system()} {platform.machine()}",
    )


def test_without_a_world_no_substrate_is_named() -> None:
    assert "substrate" not in describe()


def test_a_world_adds_its_substrate_and_the_reason_for_it(simulation: World) -> None:
    found = describe(simulation)
    assert (found["substrate"], found["why"]) == ("sim", "asked for")
    assert "path_evidence" in found
