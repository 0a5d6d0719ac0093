"""Systems under test as data: the defaults are built in, and JSON with an unknown kind of sites is refused."""

from __future__ import annotations

import msgspec
import pytest

from harness.scenario.system import KERNELS, POOLS, System


def test_the_default_system_is_built_in() -> None:
    assert (System().pool in POOLS, System().collectives in KERNELS) == (True, True)


def test_a_system_survives_json() -> None:
    system = System("package.module:Pool", "package.module:Kernels", "implicit")
    assert msgspec.json.decode(msgspec.json.encode(system), type=System) == system


def test_a_system_that_is_not_given_in_full_has_the_defaults() -> None:
    assert msgspec.json.decode(b'{"pool": "per-group"}', type=System) == System("per-group")


@pytest.mark.parametrize("text", ['{"sites": "global"}', '{"pools": "deferred"}'])
def test_json_that_is_no_system_is_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=System)
