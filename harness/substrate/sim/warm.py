"""Runs one kernel when imported, so that ranks forked afterwards find Triton's interpreter warm, and polite.

The interpreter imports a good part of Triton at its first launch: 2 s a rank, or once for all of them.
"""

import torch

from harness.kernels.barrier import barrier_kernel
from harness.substrate.sim.spins import give_way

_pad = torch.zeros(1, dtype=torch.int32)
barrier_kernel[(1,)](torch.tensor([_pad.data_ptr()]), 0, 1, SIZE=1, LANES=1)
give_way()
