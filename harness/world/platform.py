"""Which substrate a world stands on, and what its processes need for it.

Invariant: `auto` says what it chose and why; a substrate asked for by name is never replaced by the
other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from typing import NamedTuple

import msgspec

from harness.errors import MachineError, UsageError, not_one_of
from harness.machine import gpus, nccl
from harness.machine.evidence import check_names, on_nccl, on_sim
from harness.machine.inherited import import_path, inherited
from harness.machine.mps import RECOVERY, Mps
from harness.machine.observer import build as observer

NCCL_FOR_WINDOWS = (2, 27)
NCCL_FOR_SHARED_GPUS = (2, 30)
TORCH_OF_ONE_CHOICE = (2, 13)
"""From which on the allocator chooses the same block on every rank, whatever the addresses."""
TURNS_DEADLINE, TURNS_PATIENCE = 90.0, 30.0
"""Deadline and patience of ranks that take turns on a GPU, in seconds."""


NOT_SHOWN = "NCCL takes each NVLink domain for a node here: the nodes inside it are not shown"
"""Said where a domain is to span nodes: processes are told apart by host ids, and one domain has one."""


class Platform(msgspec.Struct, frozen=True):
    """A chosen substrate: its name, why, and the environment of its processes."""

    name: str
    why: str
    deadline: float
    """Seconds after which a draw is a hang."""
    patience: float
    """Least seconds of silence after which a hurried draw is one (`World.patience`)."""
    environment: dict[str, str] = {}
    preload: tuple[str, ...] = ()
    gpus: int = 0
    ranks_per_gpu: int = 1
    ranks_per_host: int | None = None
    """Where a world is over several hosts. `gpus` is the number of those of each."""
    evidence: tuple[str, ...] = ()
    """Names of the kinds of evidence that its ranks gather (`harness.machine.evidence`)."""
    is_node_bound: bool = False
    """Whether a process stays on the node that it was started on; otherwise every draw places it."""
    is_by_address: bool = False
    """Whether the allocator takes, of equal free blocks, the one at the lowest address, which need not be the same one
    on every rank (pytorch 178138)."""
    recovery: float = 0.0
    """Seconds for which ranks that CUDA does not let start are started again, as after the death of others."""

    def gpu_of(self, rank: int) -> int | None:
        """CUDA device of a rank: consecutive ranks share a GPU where there are fewer GPUs than ranks."""
        on_host = rank if self.ranks_per_host is None else rank % self.ranks_per_host
        return None if self.gpus == 0 else min(on_host // self.ranks_per_gpu, self.gpus - 1)

    def most_on_a_gpu(self, size: int) -> int:
        """Most of the first `size` ranks that compute on one GPU; 1 where there is none."""
        on_host = size if self.ranks_per_host is None else min(size, self.ranks_per_host)
        return max(Counter(self.gpu_of(rank) for rank in range(on_host)).values()) if self.gpus else 1

    def most_ranks(self, size: int, largest: int) -> int:
        """Ranks of the largest draw, where worlds have `size` and some may have `largest`: on GPUs none has more."""
        return size if self.gpus else max(size, largest)

    def device_of(self, rank: int, hides_peers: bool) -> int | None:
        """CUDA device of a rank in its process, which sees that GPU alone, or all."""
        gpu = self.gpu_of(rank)
        return 0 if hides_peers and gpu is not None else gpu

    def not_shown(self, joins_nodes: bool) -> str:
        """What processes here do not show of a placement, in a line, or nothing."""
        return NOT_SHOWN if self.is_node_bound and joins_nodes else ""

    def on(self, served: Mps) -> Platform:
        """The same, with ranks that share GPUs as `served` lets them."""
        why = f"{self.why}, {self.ranks_per_gpu} ranks a GPU: {served.how}"
        times = {} if served.has_daemon else {"deadline": TURNS_DEADLINE, "patience": TURNS_PATIENCE}
        environment = {**self.environment, **served.environment}
        recovery = RECOVERY if served.has_daemon else 0.0
        return msgspec.structs.replace(self, why=why, environment=environment, recovery=recovery, **times)

    def over(self, hosts: int, share: int) -> Platform:
        """The same, on so many hosts with `share` ranks each. Raises `UsageError` where ranks would share a GPU."""
        if self.ranks_per_gpu > 1:
            raise UsageError(f"{share} ranks a host need as many GPUs on each, and {self.gpus} can be seen here")
        why = f"{self.why}, on {hosts} hosts"
        return msgspec.structs.replace(self, why=why, ranks_per_host=share)

    def watching(self, watched: Watched) -> Platform:
        """The same, for pools that call NCCL by themselves: the observer stands in front of NCCL in every rank. Raises
        `UsageError` where no NCCL is there and nothing stands in for one of them, `MachineError` where there can be no
        observer."""
        if not watched.stand_ins and (self.gpus or not watched.fallbacks):
            return self
        if self.gpus:
            watched.prepare(watched.stand_ins, inherited({"PYTHONPATH": import_path()}))
            # the observer is NCCL's profiler plug-in too, and bears the names of the harness's own
            return msgspec.structs.replace(self, environment={**self.environment, **observer.environment(None)})
        if missing := [pool for pool, stand_in in watched.stand_ins.items() if not stand_in]:
            raise UsageError(f"pool {missing[0]!r} calls NCCL by itself, and there is none on {self.name} ({self.why})")
        instead = {**watched.stand_ins, **watched.fallbacks}
        named = ", ".join(f"{stand_in} stands in for {pool}" for pool, stand_in in instead.items())
        return msgspec.structs.replace(self, why=f"{self.why}; {named}")

    def rank_environment(self, rank: int, nodes: Sequence[int], hides_peers: bool = False) -> dict[str, str]:
        """Environment that differs between ranks, where NCCL takes rank r for one of node `nodes[r]`, and where a
        process sees its own GPU alone, or all."""
        found = nccl.node_environment(nodes[rank]) if self.is_node_bound and len(set(nodes)) > 1 else {}
        gpu = self.gpu_of(rank)
        return found | (gpus.only(gpu) if hides_peers and gpu is not None else {})


class Watched(NamedTuple):
    """The pools under test that call NCCL by themselves, each with the design that stands in for it where there is no
    NCCL, or none. `prepare` is called before ranks start on GPUs, with their names and the variables of processes.
    `fallbacks`: collectives that need a GPU, each with those that stand in for them where there is none."""

    stand_ins: Mapping[str, str]
    prepare: Callable[[Iterable[str], Mapping[str, str]], None]
    fallbacks: Mapping[str, str] = {}


def choose(substrate: str, ranks: int, evidence: Sequence[str] = ()) -> Platform:
    """The platform for `ranks` ranks, with the kinds of evidence asked for.

    Raises `UsageError` for an unknown name, `MachineError` where the machine cannot run or show what is named.
    """
    if substrate not in ("auto", "sim", "nccl"):
        raise not_one_of("substrate", substrate, ("auto", "sim", "nccl"))
    check_names(evidence)
    if substrate == "sim":
        return _sim("asked for", evidence)
    try:
        version = _check_nccl(ranks)
    except MachineError as error:
        if substrate == "nccl":
            raise MachineError(f"substrate nccl: {error}") from error
        return _sim(str(error), evidence)
    return _nccl(ranks, version, evidence)


def _sim(why: str, evidence: Sequence[str]) -> Platform:
    return Platform(
        "sim",
        why,
        deadline=20.0,
        patience=1.0,
        environment={"TRITON_INTERPRET": "1"},
        preload=("harness.substrate.sim.warm",),
        evidence=tuple(kind.name for kind in on_sim(evidence)),
    )


def _torch_version() -> str:
    return metadata.version("torch")


def _check_nccl(ranks: int) -> tuple[int, int, int]:
    """The version of the NCCL that `ranks` ranks can run on here. Raises `MachineError` where they cannot."""
    found = gpus.inventory()
    if not found:
        raise MachineError(f"no GPU is visible{gpus.why_no_gpu()}")
    if _torch_version().endswith("+cpu"):
        raise MachineError(f"a GPU is there, but torch {_torch_version()} is the CPU build")
    version = nccl.version()
    if version is None:
        raise MachineError(f"a GPU is there, but NCCL is not{nccl.why_missing()}: install the extra cu12 or cu13")
    text = ".".join(map(str, version))
    if version < NCCL_FOR_WINDOWS:
        raise MachineError(f"NCCL {text} has no windows; 2.27 or later is needed")
    shared = -(-ranks // len(found))
    if shared > 1 and version < NCCL_FOR_SHARED_GPUS:
        raise MachineError(
            f"{ranks} ranks need {ranks} GPUs, {len(found)} are visible, and NCCL {text} cannot share one (2.30 can)"
        )
    return version


def _nccl(ranks: int, version: tuple[int, int, int], evidence: Sequence[str]) -> Platform:
    """Raises `MachineError` for evidence that this NCCL does not have: who asks for it does not want the simulation."""
    found = gpus.inventory()
    shared = -(-ranks // len(found))
    kinds = on_nccl(evidence, version)
    environment = nccl.environment(shared)
    for kind in kinds:
        environment |= kind.needs()
    return Platform(
        "nccl",
        f"{gpus.number(found)} and NCCL {'.'.join(map(str, version))}",
        deadline=30.0,
        patience=4.0,
        environment=environment,
        preload=("nccl.core", "harness.substrate.nccl.substrate"),
        gpus=len(found),
        ranks_per_gpu=shared,
        evidence=tuple(kind.name for kind in kinds),
        is_node_bound=True,
        is_by_address=tuple(map(int, _torch_version().split(".")[:2])) < TORCH_OF_ONE_CHOICE,
    )
