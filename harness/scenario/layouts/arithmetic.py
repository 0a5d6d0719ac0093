"""What conventions share: degrees that divide, and the rows that an array of ranks falls into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from harness.errors import did_you_mean
from harness.scenario.layouts.groups import Groups, LayoutError

Degrees = Mapping[str, object]
Ranks = NDArray[np.int64]


def divisors(number: int) -> list[int]:
    """The widths that divide a number of ranks, smallest first."""
    return [width for width in range(1, number + 1) if number % width == 0]


def widths(convention: str, names: Sequence[str], degrees: Degrees) -> dict[str, int]:
    """Every degree of a convention as a positive int, 1 where left out."""
    found = dict.fromkeys(names, 1)
    for name, value in degrees.items():
        if name not in found:
            meant = did_you_mean(name, found)
            raise LayoutError(f"{convention} has no degree {name!r}; it has {', '.join(found)}{meant}")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise LayoutError(f"{convention} degree {name}={value!r} is not a positive integer")
        found[name] = value
    return found


def divide(convention: str, what: str, total: int, parts: dict[str, int]) -> int:
    """`total` over the product of `parts`, or a `LayoutError` that shows the division."""
    divisor = prod(parts.values())
    if total % divisor:
        names = "·".join(f"{name} {width}" for name, width in parts.items())
        raise LayoutError(f"{convention}: {what} {total} is not divisible by {names} = {divisor}")
    return total // divisor


def chunks(world: int, width: int) -> Groups:
    """Runs of `width` ranks."""
    return tuple(tuple(range(start, start + width)) for start in range(0, world, width))


def rows(grid: Ranks, width: int) -> Groups:
    """The elements of an array in runs of `width`."""
    return tuple(map(tuple, grid.reshape(-1, width).tolist()))


def product_of(parts: Mapping[str, int]) -> str:
    """Such as `tp 2 · pp 4`."""
    return " · ".join(f"{name} {width}" for name, width in parts.items())


def along(sizes: Mapping[str, int], *axes: str) -> Groups:
    """The groups along some axes of a world that has all of `sizes`, its slowest axis first."""
    ranks = np.arange(prod(sizes.values()), dtype=np.int64).reshape(tuple(sizes.values()))
    order = sorted(range(len(sizes)), key=[name in axes for name in sizes].__getitem__)
    return rows(ranks.transpose(order), prod(sizes[name] for name in axes))


def every(factors: Sequence[str], world: int, inside: Sequence[str] = ()) -> Iterator[dict[str, int]]:
    """Every way to give `factors` widths whose product is `world`, and with each all widths of `inside` that divide
    it."""
    for multiplied in _products(world, len(factors)):
        for divided in product(divisors(world), repeat=len(inside)):
            yield dict(zip((*factors, *inside), (*multiplied, *divided), strict=True))


def _products(number: int, factors: int) -> Iterator[tuple[int, ...]]:
    """Every way to write a number as so many factors, in their order."""
    if factors == 1:
        yield (number,)
        return
    for first in divisors(number):
        for others in _products(number // first, factors - 1):
            yield first, *others


def picked(number: int, pick: int) -> int:
    """The divisor of `number` that a drawn `pick` stands for; 1 for 0."""
    found = divisors(number)
    return found[pick % len(found)]


def picked_factors(world: int, names: Sequence[str], picks: Sequence[int]) -> dict[str, int]:
    """Widths of `names` whose product is `world`, as `picks` say; the last takes what the others leave."""
    found: dict[str, int] = {}
    for name, pick in zip(names[:-1], picks, strict=False):
        found[name] = picked(world, pick)
        world //= found[name]
    return {**found, names[-1]: world}
