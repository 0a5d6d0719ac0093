"""Substrates: what a rank stands on. `nccl` is the real thing, `sim` the same rules over shared memory."""
