"""Buffer sites: the group they name to the pool policy, the size they ask it for, and what the trace says of both."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch

from harness.errors import PluginError
from harness.oracle.findings import Finding
from harness.oracle.judge import judge
from harness.scenario.layouts.groups import Group, GroupId
from harness.scenario.operands import GUARD, View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Ballast, ProgramError, Step
from harness.scenario.system import Sites, System
from harness.scenario.topology import Topology
from harness.system.boundary import Misshapen
from harness.system.context import ProcessGroup
from harness.system.sites import BufferSites, ImplicitSites
from harness.trace.draw import Draw
from harness.trace.events import Placed
from harness.world.world import World

CPU = torch.device("cpu")
TP, CP = (0, 1, 2, 3), (3, 1)
"""The groups of rank 1; in `cp` it comes second."""
SIZES = {0: 40, 1: 10, 2: 30, 3: 20}
QUAD = Topology("quad", "explicit", families_given={"tp": ((0, 1, 2, 3),), "cp": ((0, 2), (3, 1))})
FLAT = Topology("flat", "explicit", families_given={"dp": ((0, 1),)})


class Listens:
    """A pool policy that notes which group it hears of and allocates nowhere in particular."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        self.heard.append(group.name)
        yield

    def close(self) -> None:
        pass


class Agrees(Listens):
    """One that says which size the ranks take, and notes what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[int]] = []

    def agreed(self, sizes: Sequence[int]) -> int:
        self.asked.append([*sizes])
        return 77


def group(family: str, ranks: Group) -> ProcessGroup:
    """A group as rank 1 sees it."""
    substrate: Any = SimpleNamespace(rank=1)
    return ProcessGroup(substrate, family, GroupId(ranks))


def explicit(policy: Listens) -> BufferSites:
    return BufferSites(policy, CPU)


def implicit(policy: Listens) -> BufferSites:
    return ImplicitSites(policy, CPU, group("tp", TP))


def local(sites: BufferSites) -> torch.Tensor:
    return sites.get_local_dp_buffer(group("cp", CP), SIZES.__getitem__, torch.bfloat16)


def whole(sites: BufferSites) -> torch.Tensor:
    return sites.get_global_dp_buffer(group("cp", CP), 55, torch.bfloat16)


# which group


@pytest.mark.parametrize("get", [local, whole])
def test_an_explicit_site_names_the_group_it_is_given(get: Any) -> None:
    policy = Listens()
    get(explicit(policy))
    assert policy.heard == ["cp[3,1]"]


@pytest.mark.parametrize("get", [local, whole])
def test_an_implicit_site_names_tp_whatever_it_is_given(get: Any) -> None:
    policy = Listens()
    get(implicit(policy))
    assert policy.heard == ["tp[0,1,2,3]"]


# which size


def test_a_policy_that_agrees_on_sizes_is_asked_with_those_of_the_group_in_its_order() -> None:
    policy = Agrees()
    local(explicit(policy))
    assert policy.asked == [[20, 10]]


def test_a_policy_that_agrees_on_sizes_is_asked_with_those_of_tp_at_an_implicit_site() -> None:
    policy = Agrees()
    local(implicit(policy))
    assert policy.asked == [[40, 10, 30, 20]]


@pytest.mark.parametrize("sites", [explicit, implicit])
def test_a_policy_that_agrees_on_sizes_decides_the_size_of_a_local_buffer(sites: Any) -> None:
    assert local(sites(Agrees())).shape == (77,)


@pytest.mark.parametrize("sites", [explicit, implicit])
def test_a_policy_without_a_say_is_asked_for_what_this_rank_needs(sites: Any) -> None:
    assert local(sites(Listens())).shape == (10,)


@pytest.mark.parametrize("sites", [explicit, implicit])
def test_a_global_buffer_has_the_size_asked_for_whatever_the_policy_would_agree_on(sites: Any) -> None:
    policy = Agrees()
    assert (whole(sites(policy)).shape, policy.asked) == ((55,), [])


@pytest.mark.parametrize("get", [local, whole])
def test_a_buffer_has_the_dtype_asked_for(get: Any) -> None:
    assert get(explicit(Listens())).dtype is torch.bfloat16


# what a policy declines


class Chooses(Agrees):
    """One that wants buffers of some size, and notes what it was asked."""

    def __init__(self, answer: object = False) -> None:
        super().__init__()
        self.offered: list[tuple[str, int]] = []
        self.answer = answer

    def agreed(self, sizes: Sequence[int]) -> int:
        return max(sizes)

    def wants(self, group: ProcessGroup, nbytes: int) -> Any:
        self.offered.append((group.name, nbytes))
        return self.answer


@pytest.mark.parametrize("sites", [explicit, implicit])
@pytest.mark.parametrize("get", [local, whole])
def test_a_declined_buffer_is_none_and_the_policy_is_not_entered(sites: Any, get: Any) -> None:
    policy = Chooses()
    assert (get(sites(policy)), policy.heard) == (None, [])


def test_a_buffer_that_is_wanted_comes_from_the_policy() -> None:
    policy = Chooses(True)
    assert (whole(explicit(policy)).shape, policy.heard) == ((55,), ["cp[3,1]"])


def test_a_policy_is_asked_with_the_group_that_the_site_names() -> None:
    policy = Chooses()
    for sites in (explicit(policy), implicit(policy)):
        whole(sites)
    assert [name for name, _ in policy.offered] == ["cp[3,1]", "tp[0,1,2,3]"]


def test_a_policy_is_asked_with_the_bytes_of_the_buffer_without_its_guard() -> None:
    policy = Chooses()
    explicit(policy).get_global_dp_buffer(group("cp", CP), 100 + GUARD, torch.bfloat16)
    assert policy.offered == [("cp[3,1]", 200)]


def test_a_policy_that_agrees_on_sizes_is_asked_with_what_they_agreed_on() -> None:
    """So that ranks which need different sizes decide alike."""
    policy = Chooses()
    explicit(policy).get_local_dp_buffer(group("cp", CP), lambda rank: 10 * rank + GUARD, torch.float32)
    assert policy.offered == [("cp[3,1]", 4 * 30)]


@pytest.mark.parametrize("answer", [None, 1, "yes", torch.tensor(True)])
def test_an_answer_that_is_no_bool_is_refused_with_what_was_given(answer: object) -> None:
    text = f"has a wants() that gave {answer!r} for cp[3,1] and {2 * (55 - GUARD)} bytes, and not a bool"
    with pytest.raises(Misshapen, match=re.escape(text)):
        whole(explicit(Chooses(answer)))


# in a world


@pytest.fixture(scope="module")
def ranks(simulation: World) -> World:
    return simulation


def scenario(*steps: Step, sites: Sites = "explicit", pool: str = "per-group") -> Scenario:
    return Scenario(QUAD, steps, System(pool, sites=sites))


def named(draw: Draw) -> list[Group]:
    """The group that each rank's only site named."""
    events = [event for trace in draw.traces for event in trace.events if isinstance(event, Placed)]
    assert len(events) == len(draw.traces)
    return [event.named.ranks for event in events]


def test_a_policy_that_gives_too_little_is_an_error_of_the_policy_with_both_sizes(ranks: World) -> None:
    steps = Allocate("a", "tp", (30, 30, 30, 100)), AllGather("tp", View("a"), 4)
    text = r"small:TooSmall' has an agreed\(\) that gave 174 for \[174, 174, 174, 244\], and not an int from 244 to"
    with pytest.raises(PluginError, match=text):
        ranks.run(scenario(*steps, pool="tests.tools.planted.small:TooSmall"))


def test_a_policy_that_gives_more_than_was_asked_for_is_sound(ranks: World) -> None:
    steps = Allocate("a", "tp", (100, 30, 40, 50)), AllGather("tp", View("a"), 4)
    draw = ranks.run(scenario(*steps, pool="deferred"))
    sizes = [event.size for trace in draw.traces for event in trace.events if isinstance(event, Placed)]
    assert (judge(draw), sizes) == ([], [4 * (100 + GUARD)] * 4)


def test_an_answer_that_is_no_bool_is_an_error_of_the_policy(ranks: World) -> None:
    text = (
        r"declines:CannotSay' has a wants\(\) that gave None for tp\[0,1,2,3\] and 256 bytes, and not a bool \(wants, "
    )
    with pytest.raises(PluginError, match=text):
        ranks.run(scenario(Allocate("a", "tp", 64), pool="tests.tools.planted.declines:CannotSay"))


def test_what_is_placed_names_the_group_of_an_explicit_site(ranks: World) -> None:
    assert named(ranks.run(scenario(Allocate("a", "cp", 64)))) == [(0, 2), (3, 1), (0, 2), (3, 1)]


@pytest.mark.parametrize("site", ["local", "global"])
def test_what_is_placed_names_tp_at_an_implicit_site(ranks: World, site: Any) -> None:
    assert named(ranks.run(scenario(Allocate("a", "cp", 64, site=site), sites="implicit"))) == [TP] * 4


def test_what_is_placed_in_ordinary_memory_names_no_group(ranks: World) -> None:
    assert named(ranks.run(scenario(Allocate("a", "cp", 64, role="plain"), sites="implicit"))) == [()] * 4


def test_ballast_names_the_group_of_its_pool_without_a_site(ranks: World) -> None:
    draw = ranks.run(scenario(Ballast("b", "cp", 1, 64), sites="implicit", pool="tests.tools.planted:NeverRegisters"))
    placed = [event.named.ranks for event in draw.traces[1].events if isinstance(event, Placed)]
    assert placed == [(3, 1)]


# what follows for ownership

STEPS = (Allocate("a", "cp", 64), AllGather("cp", View("a"), 32))


def test_explicit_sites_own_what_their_collectives_use(ranks: World) -> None:
    assert judge(ranks.run(scenario(*STEPS))) == []


def only(found: list[Finding]) -> Finding:
    (finding,) = found
    return finding


def test_implicit_sites_are_wrong_owners_and_the_explanation_names_the_group_asked_for(ranks: World) -> None:
    finding = only(judge(ranks.run(scenario(*STEPS, sites="implicit"))))
    assert (finding.rule, finding.step, finding.ranks) == ("wrong-owner", 1, (0, 2))
    asked = "Its site asked the pool for tp[0,1,2,3] at step 0 (allocate)."
    assert f"cp[0,2] has no window over it. {asked}" in str(finding)


def test_an_explanation_is_silent_on_the_site_where_it_asked_for_the_group_of_the_call(ranks: World) -> None:
    finding = only(judge(ranks.run(scenario(Allocate("t", "tp", 64), *STEPS, pool="snapshot-once"))))
    assert finding.rule == "wrong-owner"
    assert "site asked" not in str(finding)


# scenarios


def test_implicit_sites_on_a_topology_without_tp_are_refused_with_its_name() -> None:
    with pytest.raises(ProgramError, match="implicit sites name 'tp', which topology 'flat' has not"):
        Scenario(FLAT, (Allocate("a", "dp", 64),), System(sites="implicit"))


def test_explicit_sites_need_no_tp() -> None:
    assert Scenario(FLAT, (Allocate("a", "dp", 64),), System()).families == ("dp",)


def test_implicit_sites_need_the_communicators_of_tp_beside_those_that_steps_name() -> None:
    assert scenario(*STEPS, sites="implicit").families == ("cp", "tp")


def test_sites_outlive_a_scenarios_way_through_json() -> None:
    kept = scenario(*STEPS, sites="implicit")
    assert msgspec.json.decode(msgspec.json.encode(kept), type=Scenario) == kept


@pytest.mark.parametrize("given", [None, 64.0, "64", (64, 64), 19, -1, 1 << 40])
def test_a_size_that_no_rank_could_use_is_refused_with_what_was_given(given: Any) -> None:
    policy = Agrees()
    policy.agreed = lambda sizes: given  # type: ignore[method-assign]
    with pytest.raises(Misshapen, match=re.escape(f"has an agreed() that gave {given!r} for [20, 10]")):
        local(explicit(policy))
