"""Systems under test for the GPU tests."""

import os
import signal

import torch

from harness.system.pools.per_group import PerGroup


class KilledOnRankOne(PerGroup):
    """Ends its own process at the first allocation on rank 1."""

    def use(self, group):
        if self._context.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().use(group)


class CapturesAnAllGather(PerGroup):
    """At the end, captures an all-gather over the world, replays it on changed input, and checks it.

    Raises, and so fails the draw, if the capture ran anything or the replay gave a wrong result.
    """

    def close(self):
        group = next(iter(self._context._substrate.communicators.values()))
        device, size, rank = self._context.device, group.size, group.rank
        pool = self._context.pool("captured")
        with pool.use():
            output = torch.zeros(4 * size, device=device)
        source = torch.zeros(4, device=device)
        window = group.register(pool.segments[0])
        substrate = self._context._substrate
        group.all_gather(output, source)  # once outside, so that nothing is initialised inside the capture
        with substrate.device.capture() as graph:
            path, _ = group.all_gather(output, source)
        source.fill_(rank + 1)
        graph.replay()
        substrate.device.synchronize()
        expected = torch.arange(1, size + 1, dtype=torch.float32).repeat_interleave(4)
        found = output.to("cpu", copy=True)
        group.barrier()
        window.close()
        del output, graph
        super().close()
        if path != "symmetric" or not torch.equal(found, expected):
            raise AssertionError(f"replay over path {path} gave {found.tolist()}")
