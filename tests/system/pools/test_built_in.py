"""Pool policies by name: every design owns what one group asks for, and a name that cannot be one is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from harness.errors import PluginError
from harness.oracle.judge import judge
from harness.scenario.system import POOLS
from harness.system.pools.built_in import BUILT_IN, load_pool
from harness.world.world import World
from tests.tools.designs import (
    PROGRAMS,
    TWO_GROUPS,
    UNEVEN,
    UNEVEN_RULES,
    causes,
    found,
    run,
)


@pytest.mark.parametrize("pool", BUILT_IN)
def test_one_group_with_equal_sizes_is_owned_under_every_design(ranks: World, pool: str) -> None:
    assert found(ranks, pool, (*TWO_GROUPS[:2], TWO_GROUPS[4])) == []


@pytest.mark.parametrize("pool", ["snapshot-once", "shared-at-alloc", "shared-at-exit", "per-unique-id", "per-group"])
def test_segments_of_different_sizes_are_right_where_nccl_allows_them(ranks: World, pool: str) -> None:
    """From 2.30.7 on, and so on the simulation; before, a registration fails on some rank."""
    draw = run(ranks, *PROGRAMS["uneven segments"], pool=pool)
    (before,) = judge(msgspec.structs.replace(draw, nccl=(2, 29, 7)))
    sizes = "rank 0 2097152 bytes, rank 1 2097152 bytes, rank 2 20971520 bytes"
    assert (judge(draw), before.rule) == ([], "registration-skew")
    assert f"the first registration of tp[0,1,2,3] differs in size: {sizes}" in str(before)


@pytest.mark.parametrize("name", UNEVEN)
@pytest.mark.parametrize("pool", ["snapshot-once", "shared-at-alloc", "shared-at-exit", "per-unique-id", "per-group"])
def test_uneven_sizes_in_a_group_break_pools_whose_ranks_agree_on_nothing(ranks: World, pool: str, name: str) -> None:
    broken = found(ranks, pool, PROGRAMS[name])
    assert causes(broken) == UNEVEN_RULES[name]
    assert UNEVEN[name] in str(broken[0])


def test_every_name_of_the_command_line_is_a_design() -> None:
    assert tuple(BUILT_IN) == POOLS


class Plain:
    """Has everything that a policy needs."""

    def __init__(self, context: object) -> None: ...

    def use(self, group: object) -> None: ...

    def close(self) -> None: ...


class Unclosed:
    def use(self, group: object) -> None: ...


class Elsewhere:
    """Makes an object of another class, so it needs no methods of its own."""

    def __new__(cls, context: object) -> Any:
        return Plain(context)


not_callable = "a pool"


@pytest.mark.parametrize("name", ["Plain", "Elsewhere"])
def test_a_users_policy_is_found_by_module_and_attribute(name: str) -> None:
    assert load_pool(f"{__name__}:{name}") is globals()[name]


def test_an_attribute_that_cannot_be_built_is_refused() -> None:
    with pytest.raises(PluginError, match="is not callable; it is built with the rank's context"):
        load_pool(f"{__name__}:not_callable")


def test_a_class_without_a_method_of_a_policy_is_refused_with_its_name() -> None:
    with pytest.raises(PluginError, match="has no method 'close'"):
        load_pool(f"{__name__}:Unclosed")


class Odd(type):
    """A class of which nothing can be looked up."""

    def __getattr__(cls, name: str) -> Any:
        raise KeyError(name)


class Hidden(metaclass=Odd): ...


def test_a_class_that_raises_when_it_is_looked_at_is_refused_with_what_it_raised() -> None:
    with pytest.raises(PluginError, match=r"raised when looked at: KeyError\('agreed'\)$"):
        load_pool(f"{__name__}:Hidden")
