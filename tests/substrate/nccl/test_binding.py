"""An NCCL that is older than its binding: no structure says a newer version than it has."""

from __future__ import annotations

import pytest

nccl = pytest.importorskip("nccl.bindings.nccl", reason="nccl4py is not installed")

from harness.substrate.nccl.binding import CollectiveConfig, made_for  # noqa: E402


def number(version: tuple[int, int, int]) -> int:
    major, minor, patch = version
    return 10000 * major + 100 * minor + patch


@pytest.mark.parametrize("loaded", [(2, 31, 2), (2, 99, 0)], ids=["older", "newer"])
def test_a_calls_configuration_is_of_the_older_of_the_two(
    monkeypatch: pytest.MonkeyPatch, loaded: tuple[int, int, int]
) -> None:
    monkeypatch.setattr(nccl, "get_version", lambda: number(loaded))
    made = CollectiveConfig(alg_selection="SYMK_ST", force_alg_selection=True)._to_lowpp()
    assert (made.version, made.alg_selection, made.force_alg_selection) == (
        number(min(loaded, made_for())),
        "SYMK_ST",
        1,
    )


def test_the_binding_knows_what_it_was_made_for() -> None:
    assert made_for() >= (2, 28, 0)
