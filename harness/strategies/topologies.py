"""Strategies for topologies: random degrees of every convention, mixed with the named ones.

A topology is a fixed number of choices (ranks, convention, six picks), so that each shrinks by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from itertools import permutations

from hypothesis import strategies as st

from harness.errors import UsageError
from harness.scenario import topology as topologies_module
from harness.scenario.layout import divisors
from harness.scenario.topology import Topology


def _sizes(world: int) -> st.SearchStrategy[int]:
    """Numbers of ranks. One rank, on which little can be tested, is rare and not what shrinking ends at."""
    return st.sampled_from([*range(2, world + 1)] * 4 + [1])


def _pick(number: int, pick: int) -> int:
    """The divisor of `number` that a drawn `pick` stands for; 1 for 0."""
    widths = divisors(number)
    return widths[pick % len(widths)]


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


def topologies(
    world: int = 8, named: Sequence[Topology] | None = None, conventions: Collection[str] = tuple(_CONVENTIONS)
) -> st.SearchStrategy[Topology]:
    """Random layouts of some conventions, mixed with the named topologies of them that fit `world` ranks.

    `named` replaces both: then exactly those are drawn. Raises `UsageError` if one of them does not fit.
    """
    if named is not None:
        for topology in named:
            if topology.world > world:
                raise UsageError(
                    f"topology {topology.name!r} has {topology.world} ranks; the largest world to draw has {world}"
                )
        return st.sampled_from(sorted(named, key=lambda topology: topology.world))
    return _mixed(world, tuple(conventions))


def _mixed(world: int, conventions: tuple[str, ...]) -> st.SearchStrategy[Topology]:
    """Named topologies and layouts, always from the same number of choices, so that each shrinks by itself."""

    def build(size: int, is_shipped: bool, convention: str, picks: tuple[int, ...]) -> Topology:
        fitting = [t for t in _shipped() if t.world == size and t.convention in conventions]
        if is_shipped and fitting:
            return fitting[picks[0] % len(fitting)]
        return _layout(convention, size, picks)

    return st.builds(build, _sizes(world), st.booleans(), st.sampled_from(conventions), _PICKS)
