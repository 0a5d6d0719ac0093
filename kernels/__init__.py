"""Triton device code: all-gather, all-to-all, reduce-scatter and the barrier between ranks. CUDA C++ is in `cuda/`.

Portable from Triton 3.6 on, and exact both on GPUs and in Triton's interpreter (see `rounding`).

**Access.** Where the local tensor, every peer's tensor and the offset of the chunk are multiples of 16 bytes, data goes
by words of 16 bytes, and the last elements that fill none go one by one. Otherwise all of them do. Each program decides
that by the addresses, so a tensor that is aligned on some ranks alone is right, too. `tl.multiple_of` marks the
instruction that makes the pointer, for all its users: each of the two paths therefore makes pointers of its own.

**Size.** Offsets are of 64 bits. Blocks lie on the first axis of the grid, which has 2^31 - 1 places; the others have
65,535 (CUDA C++ Programming Guide, "Compute Capabilities"). Arguments are cast to 64 bits in the kernel, because the
interpreter gives an integer the width that it needs, whatever its annotation.

**Order.** These kernels have none of their own: a stream runs a barrier, the kernel, and a barrier. Kernels of a stream
run one after another, and a release at system scope covers what was written before it in that order (PTX ISA, "Memory
Consistency Model"). So no access comes before every peer is in the call, and none is missing when a rank leaves it.
"""
