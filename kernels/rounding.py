"""fp32 to bfloat16 by round-to-nearest-even in integer arithmetic.

Triton's interpreter truncates where the hardware rounds (measured with Triton 3.4 to 3.9), so the
rounding is spelled out and the same bits come out on both.
"""

import triton
import triton.language as tl


@triton.jit
def to_bfloat16_bits(value):
    """int16 bits of the nearest bfloat16, ties to even; NaN stays NaN."""
    # the interpreter checks sums of 32 bits for overflow, at ten times their cost; compiled, these are of 32 bits again
    word = value.to(tl.int32, bitcast=True).to(tl.int64)
    rounded = (word + 0x7FFF + ((word >> 16) & 1)) >> 16
    return tl.where(value == value, rounded, 0x7FC0).to(tl.int16)
