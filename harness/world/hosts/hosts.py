"""The hosts of one world, as the parent holds them together: where each rank is, and what all hosts have to know.

Invariant: when ranks begin a draw, every host has the parent's words of its rows. From then on each gets what ranks of
the others have written there, in order.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from harness.clock import CLOCK, Clock
from harness.errors import MachineError, UsageError
from harness.ipc.host_messages import Common, Open, Prepare
from harness.ipc.memory import SharedMemory
from harness.ipc.mirror import Mirror
from harness.scenario.layouts.groups import GroupId
from harness.world.hosts.launch import machine_id
from harness.world.hosts.remote import Host, RemoteLauncher
from harness.world.platform import Platform
from harness.world.rank_process import RankProcess
from harness.world.stacks import Stack, take

LOOK = 0.05
"""Seconds after which changed words are sent to other hosts, were the bell not rung."""


class Over(NamedTuple):
    """The tasks that start ranks on other hosts, in the order of their ranks; `share` ranks are on each host."""

    others: Sequence[Host]
    share: int
    where: str = ""
    """The hosts and their ranks, in words."""


class Hosts:
    """The hosts of a world, over the memory of the first one, the parent's. A context manager of the thread that sends
    words."""

    def __init__(self, over: Over, platform: Platform, shared: SharedMemory, clock: Clock = CLOCK) -> None:
        self.share, self.where = over.share, over.where
        self._others, self._platform, self._shared, self._clock = over.others, platform, shared, clock
        self._launchers: list[RemoteLauncher] = []
        self._mirrors: list[tuple[Host, Mirror]] = []
        self._lock = threading.Lock()
        self._has_ended = False
        self._sending = threading.Thread(target=self._send_words, name="words to hosts", daemon=True)

    def __enter__(self) -> Hosts:
        self._sending.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._has_ended = True
        self._sending.join()

    def launch(self) -> list[RemoteLauncher]:
        """A launcher on each other host, in the order of their ranks."""
        fd = self._shared.fd
        common = Common(machine_id(), os.getpid(), fd, os.fstat(fd).st_ino) if self._platform.name == "sim" else None
        opening = Open(
            size=self._shared.ranks,
            here=self.share,
            substrate=self._platform.name,
            evidence=self._platform.evidence,
            common=common,
        )
        self._launchers = []
        for host in self._others:
            launcher = RemoteLauncher(host, opening, self._shared, self._clock)
            host.hearer = launcher.hear
            self._launchers.append(launcher)
        return self._launchers

    def prepare(self, slots: Mapping[GroupId, int]) -> None:
        """Have a draw of these groups begin on every host. Only while none of the ranks runs."""
        order = [*slots.items()]
        rows = self._shared.counters[[slot for _, slot in order]].tobytes()
        with self._lock:
            self._mirrors = []
            for place, host in enumerate(self._others, start=1):
                there = self._ranks_of(place)
                elsewhere = {*range(self._shared.ranks)} - {*there}
                self._mirrors.append((host, Mirror(self._shared, slots, elsewhere, with_waits=False)))
                host.send(Prepare(tuple(order), rows, tuple(there)))

    def settle(self) -> None:
        """Have here what every host knows. Raises `MachineError` where one is lost."""
        for launcher in self._launchers:
            launcher.settle()

    def take(self, ranks: Mapping[int, RankProcess], native: bool) -> dict[int, Stack]:
        """The stacks of ranks, as `harness.world.stacks.take` gives them, of all hosts at once."""
        asked: list[tuple[RemoteLauncher, int]] = []
        for place, launcher in enumerate(self._launchers, start=1):
            if there := tuple(sorted(ranks.keys() & {*self._ranks_of(place)})):
                asked.append((launcher, launcher.ask_for_stacks(there, native)))
        found = take({index: rank for index, rank in ranks.items() if index < self.share}, native, self._clock)
        for launcher, number in asked:
            with suppress(MachineError):
                found |= launcher.stacks(number)
        return found

    def check(self, domain_of: Sequence[int]) -> None:
        """Raise `UsageError` where a draw on GPUs places ranks of two hosts in one node or domain."""
        if not self._platform.is_node_bound:
            return
        host_of: dict[int, int] = {}
        for rank, domain in enumerate(domain_of):
            if host_of.setdefault(domain, rank // self.share) != rank // self.share:
                raise UsageError(
                    f"the scenario has rank {rank} on one node with rank {domain_of.index(domain)}, "
                    "and the two are on different hosts"
                )

    def _ranks_of(self, place: int) -> range:
        return range(place * self.share, (place + 1) * self.share)

    def _send_words(self) -> None:
        assert self._shared.bell is not None
        while not self._has_ended:
            if select.select([self._shared.bell], [], [], LOOK)[0]:
                os.eventfd_read(self._shared.bell)
            with self._lock:
                for host, mirror in self._mirrors:
                    if (words := mirror.changed()) is not None:
                        host.send(words)
