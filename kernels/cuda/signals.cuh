// Words by which blocks of different ranks meet, and the epoch that tells one call from the next.
//
// Invariant: an epoch lives on the device, is read by every block of a kernel before its first wait, and is moved on by
// the last block that ends. So a graph that is replayed finds the epoch of its own turn. Epochs only grow, and are
// compared by their difference, which survives the end of 32 bits.
//
// Ordering: a signal is a release and a look an acquire, both at system scope. `__syncthreads` puts what the other
// threads of the block did before the release, and what they do next behind the acquire (PTX ISA, "Memory Consistency
// Model", causality order).
#pragma once

#include "ptx.cuh"

// Ends the kernel with an error where a wait takes longer than SPIN_SECONDS, if that is defined.
struct Patience {
#ifdef SPIN_SECONDS
    u64 begun = nanoseconds();
    __device__ void check() const {
        if (nanoseconds() - begun > SPIN_SECONDS * 1000000000ull) __trap();
    }
#else
    __device__ void check() const {}
#endif
};

// Two words of this rank's own: how often it went on, and how many blocks of the kernel under way have ended.
struct Epoch {
    u32 *count, *ended, now;

    __device__ explicit Epoch(u32* words) : count(words), ended(words + 1), now(*(volatile u32*)words) {}

    // Called by all threads of every block, as the last thing that they do.
    __device__ void advance(u32 steps) {
        __syncthreads();
        if (threadIdx.x == 0) {
            __threadfence();
            if (atomicAdd(ended, 1u) + 1 == gridDim.x) {
                *ended = 0;
                *count = now + steps;
            }
        }
    }
};

// Block b meets block b of every rank at words `b · size + sender`. All threads call it; the block has `size` or more.
__device__ inline void meet(const i64* flags, int rank, int size, u32 epoch) {
    __syncthreads();
    if (threadIdx.x < size) {
        const i64 row = (i64)blockIdx.x * size;
        release((u32*)flags[threadIdx.x] + row + rank, epoch);
        const u32* mine = (const u32*)flags[rank] + row + threadIdx.x;
        Patience patience;
        while ((int)(acquire(mine) - epoch) < 0) patience.check();
    }
    __syncthreads();
}
