"""Where wrong values came from: what else of a draw's exact data they equal.

Invariant: this is looked for where an output is wrong, and costs nothing elsewhere. An origin is named only where so
many wrong elements equal it, one after another, that chance explains it in less than one case of 2**`SURE`. Zeros are
named also where a run of any length consists of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations, islice
from typing import NamedTuple

import torch
from msgspec.structs import replace

from harness.rank import values
from harness.rank.exact import ExactData
from harness.rank.own import cat, zeros_like
from harness.scenario.layouts.groups import Group
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Collective
from harness.substrate.bits import bits
from harness.trace.events import Mismatch, Origin

SURE, TRIED = 24, 16
"""Of chance, and of the number of origins that may be tried, the logarithm."""
GAP = 32
"""Right elements in a row that end a run of wrong ones. Fewer may be right by chance."""
LOOKED_AT = 4096
"""Wrong elements of a run, at most."""
PLACES = 16
"""Places of a row that begin as the run does, of which as many are looked at."""
PAST, NEXT, LARGEST = 16, 2, 1 << 22
"""Earlier and later calls that are looked at, and elements of one. A larger one is left out."""
SUBSETS = 8
"""Largest group of which every subset of ranks is tried as a partial sum."""

Candidate = tuple[Origin, torch.Tensor]
"""An origin, and the bits that the run would have with it, or the first of them."""


class Run(NamedTuple):
    """Wrong elements one after another: their bits, and their places in a rank's input."""

    found: torch.Tensor
    places: torch.Tensor


class Calls:
    """The collectives of a scenario that rank `rank` has run up to now. They are looked at on the host."""

    def __init__(self, scenario: Scenario, rank: int) -> None:
        self._scenario, self._rank = scenario, rank
        self._past: list[int] = []

    def ran(self, index: int) -> None:
        """Count the call at a step."""
        self._past.append(index)

    def explained(
        self, index: int, mismatch: Mismatch, found: torch.Tensor, exact: torch.Tensor, wide: bool
    ) -> Mismatch:
        """The mismatch of the call at step `index`, with the origin of its first run of wrong elements if one is sure.
        `wide`: its inputs were those for a collective that rounds once."""
        call = self._inputs(index, self._group(index), wide)
        if not call.is_exact:  # right elements differ in their bits there too
            return mismatch
        run = call.first_run(mismatch, found.cpu(), exact.cpu())
        origin, matched = None, 0
        for each, values_of_it in self._candidates(call, run):
            if (length := _in_common(values_of_it, run.found)) > matched:
                origin, matched = each, length
            if matched == len(run.found):
                break
        # garbage may begin with a zero, and does not consist of zeros
        is_all_zero = origin is not None and origin.kind == "zeros" and matched == len(run.found)
        if is_all_zero:
            origin = self._zeros(call, run, call.group[mismatch.chunk])
        if origin is None or not (is_all_zero or call.information(run.found[:matched]) >= SURE + TRIED):
            return mismatch
        return replace(mismatch, origin=replace(origin, matched=matched, wrong=len(run.found)))

    def _zeros(self, call: _Inputs, run: Run, sender: int) -> Origin:
        """Zeros; of a gather with the call, a later one first, in which the sender puts in zeros at the same place."""
        for index in chain(self._next(call.index), reversed(self._past[-PAST:])) if call.op is None else ():
            other = self._inputs(index, self._group(index), self._step(index).via == "kernel")
            is_alike = other.op is None and (other.group, other.dtype) == (call.group, call.dtype)
            if is_alike and other.elements <= LARGEST:
                row = other.bits_of(sender)
                if int(run.places[-1]) < len(row) and not row[run.places].any():
                    return Origin("zeros", (sender,), index)
        return Origin("zeros")

    def _candidates(self, call: _Inputs, run: Run) -> Iterator[Candidate]:
        """What the run may be, likelier things first."""
        yield Origin("zeros"), zeros_like(run.found)
        yield from call.places(run)
        yield from call.partial(run)
        for group, _ in self._scenario.acting(call.step):
            if group != call.group:
                yield from self._inputs(call.index, group, call.is_wide).places(run)
        for index in chain(reversed(self._past[-PAST:]), self._next(call.index)):
            other = self._inputs(index, self._group(index), self._step(index).via == "kernel")
            if other.dtype.itemsize == call.dtype.itemsize and other.elements <= LARGEST:
                yield from other.places(run, index)
                yield from call.mixed(run, other)

    def _next(self, index: int) -> Iterator[int]:
        """The calls after one, in which a peer may be that has left it too early."""
        steps = self._scenario.steps
        mine = (at for at in range(index + 1, len(steps)) if isinstance(steps[at], Collective) and self._acts_in(at))
        return islice(mine, NEXT)

    def _acts_in(self, index: int) -> bool:
        return self._scenario.group_of(self._step(index), self._rank) is not None

    def _step(self, index: int) -> Collective:
        step = self._scenario.steps[index]
        assert isinstance(step, Collective)
        return step

    def _group(self, index: int) -> Group:
        group = self._scenario.group_of(self._step(index), self._rank)
        assert group is not None
        return group.ranks

    def _inputs(self, index: int, group: Group, wide: bool) -> _Inputs:
        step = self._step(index)
        mine = group.index(self._rank) if self._rank in group else 0
        keys = [values.key(self._scenario.seed, index, rank) for rank in group]
        dtype = getattr(torch, self._scenario.allocations[step.whole.buffer].dtype)
        return _Inputs(index, ExactData(step, group, mine, torch.device("cpu")), keys, dtype, wide)


class _Inputs:
    """What the ranks of a group put in at step `index`: [size, elements], made when first asked for."""

    def __init__(self, index: int, exact: ExactData, keys: list[int], dtype: torch.dtype, wide: bool) -> None:
        self.index, self.dtype, self.is_wide, self._exact, self._keys = index, dtype, wide, exact, keys
        self.step, self.group, self.op = exact.step, exact.group, exact.op
        self.is_exact = exact.is_exact
        self.elements = len(keys) * exact.longest
        self._rows: torch.Tensor | None = None

    @property
    def rows(self) -> torch.Tensor:
        if self._rows is None:
            self._rows = self._exact.all_inputs(self._keys, self.dtype, self.is_wide)
        return self._rows

    def bits_of(self, rank: int) -> torch.Tensor:
        """The bits of what a rank puts in."""
        return self._bits(self.rows[self.group.index(rank)])

    def information(self, found: torch.Tensor) -> float:
        """Bits of chance in wrong values that equal an origin."""
        return information(found, self.dtype, self.op, len(self.group), self.is_wide)

    def first_run(self, mismatch: Mismatch, found: torch.Tensor, exact: torch.Tensor) -> Run:
        """The run that begins at a mismatch, within the chunk that it lies in."""
        begin, end, _, start = self._exact.span_at(mismatch.index)
        one, other = (bits(each[:end]) for each in (found, exact))
        wrong = (one != other).nonzero().flatten()[:LOOKED_AT]
        gaps = (wrong.diff() > GAP).nonzero().flatten()
        wrong = wrong[: int(gaps[0]) + 1] if gaps.numel() else wrong
        return Run(self._bits(found)[wrong], wrong - begin + start)

    def places(self, run: Run, step: int = -1) -> Iterator[Candidate]:
        """The input of one rank, or another result of a reduction, from the run's own place or from elsewhere on.
        `step` is set where the call was another one."""
        first = int(run.places[0])
        for rank, row in zip(self.group, self._bits(self.rows), strict=True):
            for start in _starts(row, run):
                yield Origin("input", (rank,), step, start - first), _from(row, run, start)
        if self.op is not None:
            row = self._bits(values.reduce_result(self.rows, self.op))
            for start in _starts(row, run):
                yield Origin("result", (self._exact.owner(start),), step, start - first), _from(row, run, start)

    def partial(self, run: Run) -> Iterator[Candidate]:
        """A reduction from which ranks are missing, or in which one counts twice. Fewest ranks come first."""
        if self.op is None:
            return
        size = len(self.group)
        parts = self.rows[:, run.places]
        missing = range(1, size) if size <= SUBSETS else (1, size - 1)
        for left_out in (each for count in missing for each in combinations(range(size), count)):
            kept = [row for row in range(size) if row not in left_out]
            yield Origin("without", tuple(self.group[row] for row in left_out)), self._reduced(parts[kept])
        if self.op not in ("max", "min"):
            for row, rank in enumerate(self.group):
                yield Origin("twice", (rank,)), self._reduced(cat([parts, parts[row : row + 1]]))

    def mixed(self, run: Run, other: _Inputs) -> Iterator[Candidate]:
        """A reduction with what one rank puts in at another one."""
        is_alike = (self.step.kind, self.group, self.dtype) == (other.step.kind, other.group, other.dtype)
        if self.op is None or not is_alike:
            return
        places = run.places[run.places < other.rows.shape[1]]
        for row, rank in enumerate(self.group):
            parts = self.rows[:, places].clone()
            parts[row] = other.rows[row, places]
            yield Origin("mixed", (rank,), other.index), self._reduced(parts)

    def _reduced(self, parts: torch.Tensor) -> torch.Tensor:
        """The bits of a reduction of some rows, an average being one over the whole group."""
        assert self.op is not None
        return self._bits(values.reduce_result(parts, self.op, len(self.group)))

    def _bits(self, data: torch.Tensor) -> torch.Tensor:
        """The bits of data; of a reduction without the sign of a zero, which depends on where a sum begins."""
        one = bits(data)
        is_reduced = self.op is not None and data.is_floating_point()
        return one.masked_fill(data == 0, 0) if is_reduced else one


def information(found: torch.Tensor, dtype: torch.dtype, op: str | None, size: int, wide: bool) -> float:
    """Bits of chance in `found`, the bits of values that are wrong: how sure it is that what equals them made them.

    Of gathered floats, zeros and infinities are drawn often. A wrong sum may be zero for many reasons, and one that was
    rounded on the way is often the sum without its smallest term. Of a maximum, half may come from any one rank.
    """
    width = 8 * dtype.itemsize
    if op is None:
        if not dtype.is_floating_point:
            return len(found) * (width - 1)
        magnitude = found.long() & (1 << width - 1) - 1
        infinity = (1 << width - 1) - (1 << values.FORMS[dtype].bits - 1)
        return sum(5 if each in (0, infinity) else width - 1 for each in magnitude.tolist())
    if op in ("max", "min") or (wide and dtype in values.NARROW):
        return len(found)
    telling = int((found.long() & (1 << width - 1) - 1).count_nonzero())
    return len(found) - telling + telling * max(1, min(4, 8 - (size - 1).bit_length()))


def _starts(row: torch.Tensor, run: Run) -> Iterator[int]:
    """Where a row of data begins as the run does, the run's own place first."""
    first = int(run.places[0])
    hits = [int(hit) for hit in (row == run.found[0]).nonzero().flatten()[:PLACES]]
    own = first < len(row) and bool(row[first] == run.found[0])
    return iter([first] * own + [hit for hit in hits if hit != first])


def _from(row: torch.Tensor, run: Run, start: int) -> torch.Tensor:
    """The elements of a row as far apart as those of the run, as far as it reaches."""
    places = run.places - run.places[0] + start
    return row[places[places < len(row)]]


def _in_common(one: torch.Tensor, other: torch.Tensor) -> int:
    """How many elements two tensors begin with alike."""
    size = min(len(one), len(other))
    apart = (one[:size] != other[:size]).nonzero().flatten()
    return int(apart[0]) if apart.numel() else size
