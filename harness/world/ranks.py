"""The rank processes of a world as one, as the parent starts, prepares and kills them: together.

Invariant: there are as many ranks as a draw has needed, joined and ready, or none. Where they join a world of NCCL,
those are all.
"""

from __future__ import annotations

import re
import select
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from harness.clock import CLOCK, Clock
from harness.errors import MachineError
from harness.ipc.memory import SharedMemory
from harness.ipc.messages import Broken, Failed, Join, RankConfig, Ready, Refused, Reply, WorldSize
from harness.world import litter
from harness.world.hosts.hosts import Hosts
from harness.world.hosts.remote import RemoteLauncher
from harness.world.launcher import Launcher
from harness.world.platform import Platform
from harness.world.rank_process import RankProcess, first_replies

StartMethod = Literal["fork", "spawn"]
START_DEADLINE = 120.0
CUDA_ERROR = re.compile(r"cuda ?(driver )?error|CUDA_ERROR_|cudaGetDeviceCount|\bMPS\b", re.IGNORECASE)
"""As PyTorch writes it, in an error of its own and where it counts devices, and as names of CUDA's and NCCL's do."""
FATAL = re.compile(r"Fatal Python error: |[\w.]+(Error|Exception|Interrupt)(: |$)")
"""How a line begins that names what a process died of."""
GRACE = 0.5
"""Seconds for the other ranks to report their own failures, once one has failed."""
PAUSE = 0.5
"""Seconds between two attempts to start ranks."""


TOKEN = "token"
"""In a description, where the ranks come together. It is no feature."""


class _Died(MachineError):
    """A rank was gone when it should have answered."""


class Ranks:
    """`size` ranks on one platform over one shared memory, from one zygote (`fork`) or one each (`spawn`). Each of
    several `hosts` has a zygote of its own."""

    def __init__(
        self,
        size: int,
        platform: Platform,
        shared: SharedMemory,
        method: StartMethod,
        clock: Clock = CLOCK,
        hosts: Hosts | None = None,
    ) -> None:
        self.size, self.platform, self._hosts = size, platform, hosts
        self.description: dict[str, Any] = {}
        """Versions and features of the substrate, as the first rank reports them."""
        self.processes: list[RankProcess] = []
        self.nodes: tuple[int, ...] = (0,) * size
        """What NCCL takes for the node of each rank, where the platform binds processes to one."""
        self.hides_peers = False
        """Whether a process sees its own GPU alone, where the platform binds processes."""
        self._shared, self._method, self._clock = shared, method, clock
        self._launchers: list[Launcher | RemoteLauncher] = []
        self._poll = select.poll()
        self._sizes: set[int] = set()

    def start(self, wanted: int) -> None:
        """Start those of the first `wanted` ranks that are not there; all ranks, where they join one another. Raises
        `MachineError`."""
        wanted = self.size if self.platform.gpus else wanted
        if not self._launchers:
            self._launch()
        end = self._clock.now() + self.platform.recovery
        try:
            while len(self.processes) < wanted:
                self._start(wanted, again=self._clock.now() < end)
        except BaseException:
            self.close()
            raise

    def set_world_size(self, size: int) -> None:
        """Have all ranks, those that will idle too, prepare for draws of the first `size`."""
        if size in self._sizes:
            return
        for rank in self.processes:
            rank.send(WorldSize(size))
        try:
            self._collect()
            self._sizes.add(size)
        except _Died:
            pass  # the draw finds the dead rank, and reports its end
        except BaseException:
            self.kill()
            raise

    def ended(self) -> list[int]:
        """Ranks that have died, although no request is under way. One system call."""
        closed = {fd for fd, _ in self._poll.poll(0)}  # between two requests, none has anything to say
        return [index for index, rank in enumerate(self.processes) if rank.connection.fileno() in closed]

    def kill(self) -> list[int]:
        """Kill every rank. Returns wait statuses in rank order."""
        statuses: dict[tuple[object, int], int] = {}
        ranks, self.processes = self.processes, []
        left: set[Path] = set()
        try:
            left = self._mapped(ranks)
            for launcher in self._launchers:
                ended = launcher.kill([rank.pid for rank in ranks if rank.launcher is launcher])
                statuses |= {(launcher, pid): status for pid, status in ended.items()}
        except BaseException:  # answers of the launchers may be on their way still
            self._close_launchers()
            raise
        finally:
            for rank in ranks:
                rank.close()
            litter.remove(left)
        return [statuses.get((rank.launcher, rank.pid), 0) for rank in ranks]

    def close(self) -> None:
        """End every process. May be called twice."""
        left: set[Path] = set()
        try:
            left = self._mapped(self.processes)
        finally:
            self._close_launchers()
            for rank in self.processes:
                rank.close()
            self.processes = []
            litter.remove(left)

    def _mapped(self, ranks: list[RankProcess]) -> set[Path]:
        """Files of shared memory that NCCL would leave."""
        here = (rank.pid for rank in ranks if isinstance(rank.launcher, Launcher))  # other hosts do it by themselves
        return litter.mapped(here) if self.platform.gpus else set()

    def _close_launchers(self) -> None:
        """End the lines to what ranks are forked from, and so the ranks."""
        launchers, self._launchers = self._launchers, []
        for launcher in launchers:
            launcher.close()

    def _launch(self) -> None:
        """Connect to what ranks are forked from, and wait until it has imported what they need."""
        if self._hosts is not None:
            self._launchers += self._hosts.launch()  # first, so that all hosts import at once
        launch = Launcher.shared if self._method == "fork" else Launcher.alone
        for at in range(1 if self._method == "fork" else self.size):
            platform = self.platform
            made = launch(self._shared.descriptors, platform.environment, platform.preload, self._clock)
            self._launchers.insert(at, made)
        for launcher in self._launchers:
            launcher.wait_ready()

    def _start(self, wanted: int, again: bool) -> None:
        """Start the first `wanted` ranks. Where CUDA refuses and it may be tried `again`, there are none after a
        moment."""
        try:
            self._start_each(wanted)
        except MachineError as error:
            if not self.platform.recovery or not CUDA_ERROR.search(str(error)):
                raise
            if not again:
                raise MachineError(f"{error}, also after {self.platform.recovery:g} s") from error
            self.kill()
            self._shared.reset()
            self._clock.sleep(PAUSE)

    def _start_each(self, wanted: int) -> None:
        self._sizes.clear()
        if not self.processes:
            self._poll = select.poll()
        present = len(self.processes)
        for index in range(present, wanted):
            launcher = self._launchers[index // self._hosts.share if self._hosts else index % len(self._launchers)]
            self.processes.append(launcher.start(self._config(index)))
            self._poll.register(self.processes[-1].connection, select.POLLIN)
        first = collect(self.processes[present:], self._clock)[0]
        assert isinstance(first, Ready)
        if not present:
            self.description = {name: value for name, value in first.description.items() if name != TOKEN}
        token = first.description.get(TOKEN)
        if token is not None:
            for rank in self.processes:
                rank.send(Join(token))
            self._collect()

    def _config(self, index: int) -> RankConfig:
        return RankConfig(
            rank=index,
            processes=self.size,
            substrate=self.platform.name,
            gpu=self.platform.device_of(index, self.hides_peers),
            environment=self.platform.rank_environment(index, self.nodes, self.hides_peers),
            evidence=self.platform.evidence,
        )

    def _collect(self) -> list[Reply]:
        return collect(self.processes, self._clock)


def collect(ranks: Sequence[RankProcess], clock: Clock = CLOCK) -> list[Reply]:
    """One reply from each rank outside a draw. Raises `_Died` if one is gone, `MachineError` if one fails.

    Of several that fail at once, one that CUDA refused is reported: the others may have failed for want of it.
    """
    waiting = dict(enumerate(ranks))
    replies: dict[int, Reply] = {}
    failures: list[MachineError] = []
    end = clock.now() + START_DEADLINE
    while waiting:
        heard = first_replies(waiting, GRACE if failures else end - clock.now(), clock)
        if not heard and not failures:
            raise MachineError(f"rank {min(waiting)} did not start within {START_DEADLINE:.0f} s")
        if not heard:
            break
        for index, reply in heard.items():
            try:
                replies[index] = _well(index, waiting.pop(index), reply)
            except MachineError as error:
                failures.append(error)
    for failure in sorted(failures, key=lambda one: not CUDA_ERROR.search(str(one))):
        raise failure
    return [replies[index] for index in range(len(ranks))]


def _well(index: int, rank: RankProcess, reply: Reply | None) -> Reply:
    """The reply of a rank that is well. Raises `MachineError` for any other."""
    match reply:
        case None:
            raise _Died(f"rank {index} died while starting: {last_error(rank.printed())}")
        case Failed(error) | Refused(error) | Broken(error):
            raise MachineError(f"rank {index} cannot start: {error}")
    return reply


def last_error(printed: str) -> str:
    """The first line of the last exception that was printed; else the last line."""
    lines = printed.splitlines() or ["no message"]
    return next((line for line in reversed(lines) if FATAL.match(line)), lines[-1])
