"""A process that imports torch and NCCL as a rank does, and says which libnccl it has mapped then.

It is started by `harness.machine.libraries`, and has no GPU, no world and no peers.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import msgspec
import torch  # noqa: F401  (it maps the NCCL that it is linked to)

from harness.machine import nccl
from harness.machine.libraries import mapped

if __name__ == "__main__":
    with suppress(Exception):
        nccl.version()  # nccl4py loads its library at the first call
    sys.stdout.buffer.write(msgspec.json.encode(mapped()))
