"""Checks of a call that need no rule of NCCL's: stamps through peer pointers, and the bits of a second run.

Invariant: both leave every buffer as they found it, or as the call leaves it, and are collective over the
group: whether they run is agreed upon first.
"""

from __future__ import annotations

import torch

from harness.rank.own import equal, tensor
from harness.substrate.bits import bits
from harness.substrate.communicator import Communicator
from harness.trace import events as trace

STAMP = 8
"""Bytes of a stamp; fewer where the operand is smaller."""


def stamp(communicator: Communicator, buffer: str, operand: torch.Tensor) -> None:
    """Every rank writes a stamp into its operand, and every rank reads all of them through its peer pointers.

    Runs where the operand lies in a window of the communicator on every rank. Records `Strayed` for each peer
    whose stamp is not found where the local window and offset say.
    """
    device, address = communicator.device, operand.data_ptr()
    window = communicator.find_window(address)
    if communicator.size < 2 or not all(communicator.exchange(int(window is not None))):
        return
    assert window is not None
    size = min(STAMP, operand.numel() * operand.element_size())
    own = device.view(address, size)
    kept = own.clone()
    communicator.barrier()
    own.copy_(_stamp_of(communicator.rank, size, device.torch_device))
    communicator.barrier()
    for index, pointer in enumerate(communicator.peer_pointers(window, address - window.address)):
        found = device.read(pointer, size)
        if not equal(found, _stamp_of(index, size, device.torch_device)):
            words = bytes(found.tolist()).hex()
            communicator.recorder.record(trace.Strayed(buffer, communicator.group[index], words))
    communicator.barrier()
    own.copy_(kept)
    communicator.barrier()


def _stamp_of(index: int, size: int, device: torch.device) -> torch.Tensor:
    """A stamp that no other rank of a group of up to 255 has, from its first byte on."""
    whole = (index + 1).to_bytes(1, "little") + b"\xa5" + index.to_bytes(2, "little") + b"SYMM"
    return tensor(list(whole[:size]), dtype=torch.uint8, device=device)


def agree_on(communicator: Communicator, path: str) -> bool:
    """Whether every rank of the group took the symmetric path."""
    return communicator.size > 1 and all(communicator.exchange(int(path == "symmetric")))


def compare(communicator: Communicator, buffer: str, first: torch.Tensor, second: torch.Tensor, by_path: bool) -> None:
    """Record `Differs` where the two runs gave different bits."""
    one, other = bits(first), bits(second)
    wrong = (one != other).nonzero().flatten()
    if len(wrong):
        index = int(wrong[0])
        mask = (1 << 8 * first.element_size()) - 1
        shown, again = (f"{int(each[index]) & mask:#x}" for each in (one, other))
        communicator.recorder.record(trace.Differs(buffer, len(wrong), one.numel(), index, shown, again, by_path))
