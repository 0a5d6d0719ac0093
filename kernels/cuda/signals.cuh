// Words by which blocks of different ranks meet, and the epoch that tells one call from the next.
//
// Invariant: each block has an epoch of its own on the device, which it reads before its first wait and moves on as it
// ends. So a graph that is replayed finds the epoch of its own turn. Block b deals with the blocks b of its peers alone,
// which were in the same calls, whatever the grids of these were. Epochs only grow, and are compared by their difference,
// which survives the end of 32 bits.
//
// Ordering: a signal is a release and a look an acquire, both at system scope. `__syncthreads` puts what the other
// threads of the block did before the release, and what they do next behind the acquire (PTX ISA, "Memory Consistency
// Model", causality order).
#pragma once

#include "ptx.cuh"

constexpr int NEAR = 16;

// An address of each rank. Up to NEAR come with the launch, so that no thread has to load one; more lie in a table.
struct Ranks {
    i64 near[NEAR];
    const i64* far;

    __device__ i64 operator[](int rank) const { return far ? far[rank] : near[rank]; }
    __device__ u64 together(int size) const {
        u64 all = 0;
        for (int rank = 0; rank < size; rank++) all |= (*this)[rank];
        return all;
    }
};

// Who is `turn` places behind `rank`, of `size`. Turns are from 0 to `size`.
__device__ inline int turned(int rank, int turn, int size) {
    const int there = rank + turn;
    return there < size ? there : there - size;
}

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

// How often this block went on: a word of this rank's own for each block.
struct Epoch {
    u32 *word, now;

    __device__ explicit Epoch(u32* words) : word(words + blockIdx.x), now(*(volatile u32*)(words + blockIdx.x)) {}

    // Called by all threads of the block, as the last thing that they do.
    __device__ void advance(u32 steps) {
        __syncthreads();
        if (threadIdx.x == 0) *word = now + steps;
    }
};

// Until a word has come to `epoch`, or beyond.
__device__ inline void wait(const u32* word, u32 epoch) {
    Patience patience;
    while ((int)(acquire(word) - epoch) < 0) patience.check();
}

// Block b meets block b of every rank at words `b · size + sender`. All threads call it; the block has `size` or more.
__device__ inline void meet(const Ranks& flags, int rank, int size, u32 epoch) {
    __syncthreads();
    if (threadIdx.x < size) {
        const i64 row = (i64)blockIdx.x * size;
        release((u32*)flags[threadIdx.x] + row + rank, epoch);
        wait((const u32*)flags[rank] + row + threadIdx.x, epoch);
    }
    __syncthreads();
}
