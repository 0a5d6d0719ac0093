"""Hypothesis strategies: topologies, programs and whole scenarios.

Invariant: everything random is drawn here, in the parent, and what is drawn can be executed. A
program is drawn as a list of small independent actions that are then compiled against the topology,
so deleting an action or lowering a number always leaves a program, and shrinking works towards small
worlds, few steps, small sizes and plain dtypes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache
from itertools import permutations
from typing import Literal, TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from harness import topology as topologies_module
from harness.builder import Action, Builder, Hazard
from harness.errors import UsageError
from harness.program import Scenario, Step, System
from harness.topology import Topology

DTYPES = ("float32", "bfloat16", "float16", "int32", "float8_e4m3fn", "float8_e5m2")
COUNTS = (1, 2, 3, 5, 7, 16, 31, 64, 127, 128, 129, 255, 257, 511, 513, 1000, 1023, 1025, 4097, 10007)
"""Elements a rank contributes: one, odd ones, and both sides of the kernels' block sizes."""
LARGE_COUNTS = (32769, 65537)
ROOMS = (0, 512, 1 << 20, 2 << 20, 10 << 20, 20 << 20)
"""Bytes a buffer is filled up to: as needed, or to a boundary of the caching allocator's size classes."""
COLLECTIVES = ("all_gather", "reduce_scatter")
OTHERS = ("allocate", "release", "release", "trim", "recreate", "straggle")
HAZARDS: tuple[Hazard, ...] = ("ballast", "deny", "uneven")
Via = Literal["mixed", "library", "kernel"]
T = TypeVar("T")


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def _sizes(world: int) -> st.SearchStrategy[int]:
    """Numbers of ranks. One rank, on which little can be tested, is rare and not what shrinking ends at."""
    return st.sampled_from([*range(2, world + 1)] * 4 + [1])


def _pick(number: int, pick: int) -> int:
    """The divisor of `number` that a drawn `pick` stands for; 1 for 0."""
    divisors = _divisors(number)
    return divisors[pick % len(divisors)]


def _sglang(world: int, picks: Sequence[int]) -> dict[str, object]:
    pp = _pick(world, picks[0])
    tp = world // pp
    attn_dp, ep = _pick(tp, picks[1]), _pick(tp, picks[3])
    return {
        "tp": tp,
        "pp": pp,
        "attn_dp": attn_dp,
        "attn_cp": _pick(tp // attn_dp, picks[2]),
        "ep": ep,
        "moe_dp": _pick(tp // ep, picks[4]),
        "dcp": _pick(tp, picks[5]),
    }


def _factors(world: int, names: Sequence[str], picks: Sequence[int]) -> dict[str, int]:
    """Widths of `names` whose product is `world`; the last takes what the others leave."""
    widths: dict[str, int] = {}
    for name, pick in zip(names[:-1], picks, strict=False):
        widths[name] = _pick(world, pick)
        world //= widths[name]
    return {**widths, names[-1]: world}


def _vllm(world: int, picks: Sequence[int]) -> dict[str, object]:
    degrees = _factors(world, ("pp", "dp", "pcp", "tp"), picks)
    return {**degrees, "dcp": _pick(degrees["tp"] * degrees["pcp"], picks[5])}


def _megatron(world: int, picks: Sequence[int]) -> dict[str, object]:
    degrees = _factors(world, ("pp", "ep", "dp", "cp", "tp"), picks)
    return {**degrees, "order": "-".join(_ORDERS[picks[5] % len(_ORDERS)])}


_ORDERS = tuple(permutations(("tp", "cp", "ep", "dp", "pp")))
_CONVENTIONS = {"sglang": _sglang, "vllm": _vllm, "megatron": _megatron}
_PICKS = st.tuples(*[st.integers(0, 119)] * 6)


def _layout(convention: str, world: int, picks: Sequence[int]) -> Topology:
    degrees = _CONVENTIONS[convention](world, picks)
    return Topology(name="drawn", convention=convention, degrees={k: v for k, v in degrees.items() if v != 1})


def layouts(world: int = 8) -> st.SearchStrategy[Topology]:
    """Topologies with random degrees of every convention, of at most `world` ranks on one node."""
    return st.builds(_layout, st.sampled_from(list(_CONVENTIONS)), _sizes(world), _PICKS)


@cache
def _shipped() -> tuple[Topology, ...]:
    return tuple(topologies_module.load(path) for path in topologies_module.named().values())


def topologies(world: int = 8, named: Sequence[Topology] | None = None) -> st.SearchStrategy[Topology]:
    """Random layouts mixed with the named topologies that fit `world` ranks.

    `named` replaces both: then exactly those are drawn. Raises `UsageError` if one of them does not fit.
    """
    if named is not None:
        for topology in named:
            if topology.world > world:
                raise UsageError(f"topology {topology.name!r} has {topology.world} ranks; the world has {world}")
        return st.sampled_from(sorted(named, key=lambda topology: topology.world))
    return _mixed(world)


def _mixed(world: int) -> st.SearchStrategy[Topology]:
    """Named topologies and layouts, always from the same number of choices, so that each shrinks by itself."""

    def build(size: int, from_file: bool, convention: str, picks: tuple[int, ...]) -> Topology:
        fitting = [topology for topology in _shipped() if topology.world == size]
        if from_file and fitting:
            return fitting[picks[0] % len(fitting)]
        return _layout(convention, size, picks)

    return st.builds(build, _sizes(world), st.booleans(), st.sampled_from(list(_CONVENTIONS)), _PICKS)


def _counts() -> st.SearchStrategy[int]:
    small = st.integers(1, 64)
    return st.one_of(small, st.sampled_from(COUNTS), st.sampled_from(COUNTS), st.sampled_from(LARGE_COUNTS + COUNTS))


def _small() -> st.SearchStrategy[int]:
    return st.integers(0, 15)


def actions(hazards: Collection[Hazard] = (), via: Via = "mixed") -> st.SearchStrategy[Action]:
    """One action of a program. See `harness.builder.Action` for what its numbers mean."""
    kinds = (*COLLECTIVES * 3, *OTHERS, *(hazard for hazard in hazards if hazard != "uneven"))
    return _actions(kinds, frozenset(hazards), via)


@cache
def _actions(kinds: tuple[str, ...], hazards: frozenset[Hazard], via: Via) -> st.SearchStrategy[Action]:
    paths = {"mixed": ("library", "library", "kernel"), "library": ("library",), "kernel": ("kernel",)}[via]
    return st.builds(
        Action,
        kind=st.sampled_from(kinds),
        family=_small(),
        buffer=_small(),
        fresh=st.booleans(),
        count=_counts(),
        spread=st.sampled_from((0, 0, 1, 3, 100)),
        room=st.sampled_from(ROOMS),
        slack=st.sampled_from((0, 1, 3, 8, 64)),
        offset=st.sampled_from((0, 0, 1, 3, 8)),
        dtype=st.sampled_from(DTYPES),
        op=st.sampled_from(("sum", "sum", "avg", "max")),
        part=st.sampled_from(("in-place", "plain", "window")),
        via=st.sampled_from(paths),
        uneven=st.booleans() if "uneven" in hazards else st.just(False),
    )


@st.composite
def programs(
    draw: st.DrawFn,
    topology: Topology,
    *,
    hazards: Collection[Hazard] = (),
    via: Via = "mixed",
    max_steps: int = 16,
) -> tuple[Step, ...]:
    """Steps for one topology: at most `max_steps`, with at least one collective.

    `max_steps` is at least 2. `hazards` adds what even a right system may not survive without agreement between ranks.
    """
    chosen = draw(st.lists(actions(hazards, via), max_size=max(0, max_steps // 2 - 1)))
    last = draw(_actions(COLLECTIVES, frozenset(hazards), via))
    return Builder(topology, max_steps).build(chosen, last)


@st.composite
def scenarios(
    draw: st.DrawFn,
    world: int = 8,
    *,
    topologies: st.SearchStrategy[Topology] | None = None,
    system: System | None = None,
    hazards: Collection[Hazard] = (),
    via: Via = "mixed",
    max_steps: int = 16,
) -> Scenario:
    """Whole draws for a world of at most `world` ranks.

    `system` is the pool policy and kernel collective under test (default `System()`); `topologies`
    a strategy that replaces the default mixture of random and named ones.
    """
    topology = draw(topologies if topologies is not None else globals()["topologies"](world))
    steps = draw(programs(topology, hazards=hazards, via=via, max_steps=max_steps))
    seed = draw(st.integers(0, 255))
    return Scenario(topology, steps, system or System(), seed)


BATCH = 12
"""Examples of one Hypothesis run. From the tenth on, five of six examples are mutations of another with
the same layout; short runs, each with a seed of its own, keep layouts varied (and memory flat)."""


def batch(strategy: st.SearchStrategy[T], body: Callable[[T], None], seed: int, number: int, shrink: bool) -> None:
    """Calls `body` with batch `number` of what a campaign with `seed` draws; always the same values.

    With `shrink`, what makes `body` raise is shrunk, and then raised as Hypothesis raises it.
    """

    @hypothesis.seed(seed * 1_000_003 + number)
    @settings(
        max_examples=BATCH,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @hypothesis.given(strategy)
    def drawn(value: T) -> None:
        body(value)

    drawn()


def sample(strategy: st.SearchStrategy[T], count: int, seed: int = 0) -> list[T]:
    """`count` values of a strategy as a campaign would draw them, always the same for the same seed."""
    drawn: list[T] = []
    number = 0
    while len(drawn) < count:
        batch(strategy, drawn.append, seed, number, shrink=False)
        number += 1
    return drawn[:count]
