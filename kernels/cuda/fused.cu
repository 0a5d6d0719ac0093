// Calls of medium size in one launch: blocks meet the same blocks of their peers, move data by words of 16 bytes, and
// meet again. A kernel with nothing to move is a barrier.
//
// All-gather pushes into every peer's output, reduce-scatter pulls from every peer's source. All-reduce does both: each
// rank pulls its slice and pushes the result. Where peers do not reach the outputs it takes tiles: each rank reduces its
// slice of a tile into its stage, block meets block, and each pulls the slices of the others.
//
// Invariant: no access to a peer comes before the peer is in the call, and none comes after it has left. The grid is the
// same on all ranks. All its blocks run at one time, or they would wait for blocks that cannot start.
//
// Ordering: see `meet`. What other blocks moved is ordered by the end of the kernel, which waits for every block.
#include "moves.cuh"

// Registers for two blocks a multiprocessor: kernels of two communicators may run at one time.
#define KERNEL __global__ void __launch_bounds__(512, 2)

// outputs: address of each rank's output; this rank's `count` elements go to `start` bytes into each.
template <typename T>
KERNEL all_gather(GIVEN Ranks outputs, GIVEN Ranks flags, u32* words, const T* source, i64 start, i64 count, int rank,
                  int size) {
    Epoch epoch(words);
    const i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x, threads = (i64)gridDim.x * blockDim.x;
    const Every<T> every{outputs, start, rank, size};
    const i64 whole = whole_words(every.addresses() | (u64)source, count * sizeof(T));
    i64 i = thread;
    Word found[DEEP];
    auto fetch = [&] {  // the next words; false where these are not there in full
        if (i + (DEEP - 1) * threads >= whole) return false;
#pragma unroll
        for (int deep = 0; deep < DEEP; deep++) found[deep] = load((const Word*)source + i + deep * threads);
        return true;
    };
    bool more = fetch();  // of this rank's own memory, so it need not wait for peers
    meet(flags, rank, size, epoch.now + 1);
    while (more) {
        for (int turn = 1; turn <= size; turn++) {
            Word* into = (Word*)every.at(turn) + i;
#pragma unroll
            for (int deep = 0; deep < DEEP; deep++) store(into + deep * threads, found[deep]);
        }
        i += DEEP * threads;
        more = fetch();
    }
    for (; i < whole; i += threads) every.put(i, load((const Word*)source + i));
    for (i = whole * 16 / sizeof(T) + thread; i < count; i += threads) every.put(i, source[i]);
    meet(flags, rank, size, epoch.now + 2);
    epoch.advance(2);
}

// Reduces `count` elements that begin `start` bytes into each rank's source.
template <typename T>
KERNEL reduce_scatter(GIVEN Ranks sources, GIVEN Ranks flags, u32* words, T* output, i64 start, i64 count, int rank,
                      int size, int op, float scale) {
    Epoch epoch(words);
    meet(flags, rank, size, epoch.now + 1);
    const i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x, threads = (i64)gridDim.x * blockDim.x;
    reduce<T>(op, Pulled{sources, start}, One<T>{output}, count, size, scale, thread, threads);
    meet(flags, rank, size, epoch.now + 2);
    epoch.advance(2);
}

// Reduces this rank's slice, `count` elements that begin `start` bytes in, into every rank's output. Output and source
// may be the same: no other rank reads or writes this slice.
template <typename T>
KERNEL all_reduce(GIVEN Ranks sources, GIVEN Ranks outputs, GIVEN Ranks flags, u32* words, i64 start, i64 count,
                  int rank, int size, int op, float scale) {
    Epoch epoch(words);
    meet(flags, rank, size, epoch.now + 1);
    const i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x, threads = (i64)gridDim.x * blockDim.x;
    reduce<T>(op, Pulled{sources, start}, Every<T>{outputs, start, rank, size}, count, size, scale, thread, threads);
    meet(flags, rank, size, epoch.now + 2);
    epoch.advance(2);
}

// stages: address of each rank's stage, which has two tiles of `tile` elements for each block. Slice p of the `count`
// elements begins p · slice in, and `slice` and `tile` fill words of 16 bytes. Block b takes every gridDim-th tile of
// every slice, from tile b on. A stage takes the tiles of its block by turns: a block fills one again only when it has
// met its peers for the tile between, so they have pulled what was there. Output and source may be the same: an element
// is written when every rank has met for its tile, and so has read it.
template <typename T>
KERNEL all_reduce_staged(GIVEN Ranks sources, GIVEN Ranks stages, GIVEN Ranks flags, u32* words, T* output, i64 count,
                         i64 slice, i64 tile, int rank, int size, int op, float scale) {
    Epoch epoch(words);
    const i64 thread = threadIdx.x, threads = blockDim.x;
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
        reduce<T>(op, Pulled{sources, mine * (i64)sizeof(T)}, One<T>{staged}, length(rank), size, scale, thread,
                  threads);
        meet(flags, rank, size, ++meeting);
        for (int turn = 0; turn < size; turn++) {
            const int peer = turned(rank, turn, size);
            copy(output + peer * slice + begin, (const T*)stages[peer] + stage, length(peer), thread, threads);
        }
    }
    epoch.advance(meeting - epoch.now);
}

// What is done beside copy engines: the first `head` elements for every peer, as engines take their time to begin, and
// all `count` for this rank's own output. Does not meet.
template <typename T>
KERNEL beside(GIVEN Ranks outputs, const T* source, i64 start, i64 count, i64 head, int rank, int size) {
    const i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x, threads = (i64)gridDim.x * blockDim.x;
    for (int turn = 1; turn < size; turn++)
        copy((T*)(outputs[turned(rank, turn, size)] + start), source, head, thread, threads);
    copy((T*)(outputs[rank] + start), source, count, thread, threads);
}

// One block: a rank leaves when all have come.
KERNEL barrier(GIVEN Ranks flags, u32* words, int rank, int size) {
    Epoch epoch(words);
    meet(flags, rank, size, epoch.now + 1);
    epoch.advance(1);
}
