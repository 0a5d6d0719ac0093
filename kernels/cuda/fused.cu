// Calls of medium size in one launch: blocks meet the same blocks of their peers, move data by words of 16 bytes, and
// meet again. A kernel with nothing to move is a barrier.
//
// All-gather pushes into every peer's output, reduce-scatter pulls from every peer's source. All-reduce takes tiles: each
// rank reduces its slice of a tile into its stage, block meets block, and each pulls the slices of the others.
//
// Invariant: no access to a peer comes before the peer is in the call, and none comes after it has left. The grid is the
// same on all ranks. All its blocks run at one time, or they would wait for blocks that cannot start.
//
// Ordering: see `meet`. What other blocks moved is ordered by the end of the kernel, which waits for every block.
#include "elements.cuh"

constexpr int DEEP = 4;  // words that a thread has on their way at one time

// Registers for two blocks a multiprocessor: kernels of two communicators may run at one time.
#define KERNEL __global__ void __launch_bounds__(512, 2)

// The element-wise rest of `count` elements from byte `done` on, and all of them where some address is not aligned.
__device__ inline i64 whole_words(u64 addresses, i64 bytes) { return addresses % 16 ? 0 : bytes / 16; }

__device__ inline u64 together(const i64* addresses, int size) {
    u64 all = 0;
    for (int peer = 0; peer < size; peer++) all |= addresses[peer];
    return all;
}

template <typename T>
__device__ void copy(T* into, const T* from, i64 count, i64 thread, i64 threads) {
    const i64 words = whole_words((u64)into | (u64)from, count * sizeof(T));
    i64 i = thread;
    for (; i + (DEEP - 1) * threads < words; i += DEEP * threads) {
        Word found[DEEP];
#pragma unroll
        for (int deep = 0; deep < DEEP; deep++) found[deep] = load((const Word*)from + i + deep * threads);
#pragma unroll
        for (int deep = 0; deep < DEEP; deep++) store((Word*)into + i + deep * threads, found[deep]);
    }
    for (; i < words; i += threads) store((Word*)into + i, load((const Word*)from + i));
    for (i = words * 16 / sizeof(T) + thread; i < count; i += threads) into[i] = from[i];
}

// outputs: address of each rank's output; this rank's `count` elements go to `start` bytes into each.
template <typename T>
KERNEL all_gather(const i64* outputs, const i64* flags, u32* words, const T* source, i64 start, i64 count,
                           int rank, int size) {
    Epoch epoch(words);
    meet(flags, rank, size, epoch.now + 1);
    const i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x, threads = (i64)gridDim.x * blockDim.x;
    const i64 whole = whole_words(together(outputs, size) | (u64)source | start, count * sizeof(T));
    i64 i = thread;
    for (; i + (DEEP - 1) * threads < whole; i += DEEP * threads) {
        Word found[DEEP];
#pragma unroll
        for (int deep = 0; deep < DEEP; deep++) found[deep] = load((const Word*)source + i + deep * threads);
        for (int turn = 1; turn <= size; turn++) {
            Word* into = (Word*)(outputs[(rank + turn) % size] + start) + i;
#pragma unroll
            for (int deep = 0; deep < DEEP; deep++) store(into + deep * threads, found[deep]);
        }
    }
    for (; i < whole; i += threads) {
        const Word found = load((const Word*)source + i);
        for (int turn = 1; turn <= size; turn++) store((Word*)(outputs[(rank + turn) % size] + start) + i, found);
    }
    for (i = whole * 16 / sizeof(T) + thread; i < count; i += threads)
        for (int turn = 1; turn <= size; turn++) ((T*)(outputs[(rank + turn) % size] + start))[i] = source[i];
    meet(flags, rank, size, epoch.now + 2);
    epoch.advance(2);
}

// output: the reduction of `count` elements that begin `start` bytes into each rank's source.
template <typename T, Op OP>
__device__ void reduce(const i64* sources, T* output, i64 start, i64 count, int size, float scale, i64 thread,
                       i64 threads) {
    constexpr int depth = sizeof(T) == 1 ? DEEP / 2 : DEEP;  // sums take four times the registers of such elements
    const i64 words = whole_words(together(sources, size) | (u64)output | start, count * sizeof(T));
    i64 i = thread;
    for (; i + (depth - 1) * threads < words; i += depth * threads) {
        Sums<T, OP, Word> sums[depth];
        for (int peer = 0; peer < size; peer++) {
            const Word* from = (const Word*)(sources[peer] + start) + i;
            Word found[depth];
#pragma unroll
            for (int deep = 0; deep < depth; deep++) found[deep] = load(from + deep * threads);
#pragma unroll
            for (int deep = 0; deep < depth; deep++) sums[deep].add(found[deep]);
        }
#pragma unroll
        for (int deep = 0; deep < depth; deep++) store((Word*)output + i + deep * threads, sums[deep].rounded(scale));
    }
    for (; i < words; i += threads) {
        Sums<T, OP, Word> sums;
        for (int peer = 0; peer < size; peer++) sums.add(load((const Word*)(sources[peer] + start) + i));
        store((Word*)output + i, sums.rounded(scale));
    }
    for (i = words * 16 / sizeof(T) + thread; i < count; i += threads) {
        Sum<T, OP> sum;
        for (int peer = 0; peer < size; peer++) sum.add(((const T*)(sources[peer] + start))[i]);
        output[i] = sum.rounded(scale);
    }
}

template <typename T>
__device__ void reduce(int op, const i64* sources, T* output, i64 start, i64 count, int size, float scale, i64 thread,
                       i64 threads) {
    if (op == SUM) reduce<T, SUM>(sources, output, start, count, size, scale, thread, threads);
    if (op == MAX) reduce<T, MAX>(sources, output, start, count, size, scale, thread, threads);
    if (op == MIN) reduce<T, MIN>(sources, output, start, count, size, scale, thread, threads);
}

template <typename T>
KERNEL reduce_scatter(const i64* sources, const i64* flags, u32* words, T* output, i64 start, i64 count,
                               int rank, int size, int op, float scale) {
    Epoch epoch(words);
    meet(flags, rank, size, epoch.now + 1);
    const i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x, threads = (i64)gridDim.x * blockDim.x;
    reduce(op, sources, output, start, count, size, scale, thread, threads);
    meet(flags, rank, size, epoch.now + 2);
    epoch.advance(2);
}

// stages: address of each rank's stage, which has two tiles of `tile` elements for each block. Slice p of the `count`
// elements begins p · slice in, and `slice` and `tile` fill words of 16 bytes. Block b takes every gridDim-th tile of
// every slice, from tile b on. A stage takes the tiles of its block by turns: a block fills one again only when it has
// met its peers for the tile between, so they have pulled what was there. Output and source may be the same: an element
// is written when every rank has met for its tile, and so has read it.
template <typename T>
KERNEL all_reduce(const i64* sources, const i64* stages, const i64* flags, u32* words, T* output, i64 count,
                           i64 slice, i64 tile, int rank, int size, int op, float scale) {
    Epoch epoch(words);
    u32 meeting = epoch.now + 1;
    meet(flags, rank, size, meeting);
    const i64 tiles = (slice + tile - 1) / tile;
    const i64 rounds = (tiles + gridDim.x - 1) / gridDim.x;  // the same for every block, so all go on alike
    for (i64 round = 0; round < rounds; round++) {
        const i64 begin = (round * gridDim.x + blockIdx.x) * tile;
        const i64 stage = (blockIdx.x * 2 + (round & 1)) * tile;
        // elements of the tile in the slice of a rank
        auto length = [&](int peer) { return max(0ll, min(min(begin + tile, slice), count - peer * slice) - begin); };
        T* staged = (T*)stages[rank] + stage;
        const i64 mine = rank * slice + begin;
        reduce(op, sources, staged, mine * sizeof(T), length(rank), size, scale, threadIdx.x, blockDim.x);
        meet(flags, rank, size, ++meeting);
        for (int turn = 0; turn < size; turn++) {
            const int peer = (rank + turn) % size;
            copy(output + peer * slice + begin, (const T*)stages[peer] + stage, length(peer), threadIdx.x, blockDim.x);
        }
    }
    epoch.advance(meeting - epoch.now);
}

// One block: a rank leaves when all have come.
KERNEL barrier(const i64* flags, u32* words, int rank, int size) {
    Epoch epoch(words);
    meet(flags, rank, size, epoch.now + 1);
    epoch.advance(1);
}
