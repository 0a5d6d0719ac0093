// Large calls through queues (FIFO) in the receiver's memory: all data is pushed, as writes over NVLink are faster than
// reads, and no rank waits for another to come to the call.
//
// Half of a block's threads push tiles of the source into the queues of the peers, and half take tiles from their own.
// The pushers of block b feed the takers of block b on each peer: these two teams share a queue of SLOTS tiles and two
// words, which count the tiles that were pushed and those that were taken.
//
// Invariant: tile n of a queue lies in slot n mod SLOTS. It is pushed when tile n - SLOTS has been taken, also where that
// was in a call before. A rank pushes and takes equally often on all queues of a block in a call, so that one epoch a
// block says how often. The grid is the same on all ranks, and all its blocks run at one time.
//
// Ordering: a count is stored by a release and looked at by an acquire, both at system scope, by one thread of a team.
// `sync_team` puts what the others did before the release, and what they do next behind the acquire.
#include "moves.cuh"

// Registers for two blocks a multiprocessor: kernels of two communicators may run at one time.
#define KERNEL __global__ void __launch_bounds__(512, 2)

constexpr int SLOTS = 4, PUSHED = 8;  // tiles of a queue, and words of a thread on their way to a peer

// A call as all of its teams see it. `slot`: bytes of a slot; `tile`: elements of a tile, which fit into it. Slice p of the
// `count` elements begins p · stride in.
struct Call {
    const Ranks& queues;
    const Ranks& counts;
    i64 count, stride, slice;
    u32 slot, tile;
    int rank, size;
};

// One team's place: among the pushers or takers, and so in the tiles.
struct Line {
    const Call& call;
    u32 now, rounds;

    __device__ Line(const Call& call, u32 now) : call(call), now(now) {
        const i64 all = (i64)call.tile * gridDim.x;
        rounds = (call.slice + all - 1) / all;
    }

    __device__ static bool pushes() { return threadIdx.x < threads(); }
    __device__ static int threads() { return blockDim.x / 2; }
    __device__ static int place() { return threadIdx.x % (blockDim.x / 2); }
    __device__ static void sync() { sync_team(pushes(), threads()); }
    __device__ i64 begin(u32 round) const { return ((i64)round * gridDim.x + blockIdx.x) * call.tile; }
    // Elements of this line's tile in the slice of a rank.
    __device__ int length(u32 round, int peer) const {
        return max(0ll, min((i64)call.tile, min(call.slice, call.count - peer * call.stride) - begin(round)));
    }
    // In the memory of `receiver`: the slot for what `sender` pushes in a round.
    __device__ i64 slot(u32 round, int sender, int receiver) const {
        const u32 queue = turned(sender, call.size - receiver, call.size) - 1;  // no rank has a queue for itself
        return call.queues[receiver] + (i64)((blockIdx.x * (call.size - 1) + queue) * SLOTS + (now + round) % SLOTS) * call.slot;
    }
    // In the memory of `of`: how many tiles between it and `peer` were pushed to it, and how many of its own were taken.
    __device__ u32* pushed(int of, int peer) const { return (u32*)call.counts[of] + (blockIdx.x * call.size + peer) * 2; }
    __device__ u32* taken(int of, int peer) const { return pushed(of, peer) + 1; }

    // By all threads of a team, as what follows.
    template <typename T>
    __device__ void push(const T* source) const {
        for (u32 round = 0; round < rounds; round++)
            for (int turn = 1; turn < call.size; turn++) {
                const int peer = turned(call.rank, turn, call.size);
                if (place() == 0) wait(taken(call.rank, peer), now + round + 1 - SLOTS);
                sync();
                copy<PUSHED>((T*)slot(round, call.rank, peer), source + peer * call.stride + begin(round), length(round, peer),
                     place(), threads());
                sync();
                if (place() == 0) release(pushed(peer, call.rank), now + round + 1);
            }
    }
    __device__ void await(u32 round, int peer) const {
        if (place() == 0) wait(pushed(call.rank, peer), now + round + 1);
        sync();
    }
    __device__ void give_back(u32 round, int peer) const {
        sync();
        if (place() == 0) release(taken(peer, call.rank), now + round + 1);
    }
};

// What is reduced: this rank's own elements, and what its peers have pushed.
struct Queued {
    const Line& line;
    u32 round;
    i64 own;

    __device__ i64 of(int peer) const { return peer == line.call.rank ? own : line.slot(round, peer, line.call.rank); }
    __device__ u64 addresses(int) const { return own; }  // slots are aligned
};

template <typename T, typename Result>
__device__ void take_sums(const Line& line, const T* own, Result result, int op, float scale) {
    const Call& call = line.call;
    for (u32 round = 0; round < line.rounds; round++) {
        for (int turn = 1; turn < call.size; turn++) line.await(round, turned(call.rank, turn, call.size));
        const i64 begin = line.begin(round);
        reduce<T>(op, Queued{line, round, (i64)(own + begin)}, result.from(begin), line.length(round, call.rank), call.size,
                  scale, line.place(), line.threads());
        for (int turn = 1; turn < call.size; turn++) line.give_back(round, turned(call.rank, turn, call.size));
    }
}

// Every rank's `count` elements go to p · count elements into the output.
template <typename T>
KERNEL all_gather(GIVEN Ranks queues, GIVEN Ranks counts, u32* words, const T* source, T* output, i64 count, i64 slot,
                  i64 tile, int rank, int size) {
    Epoch epoch(words);
    const Call call{queues, counts, count, 0, count, (u32)slot, (u32)tile, rank, size};
    const Line line(call, epoch.now);
    if (line.pushes())
        line.push(source);
    else
        for (u32 round = 0; round < line.rounds; round++) {
            const i64 begin = line.begin(round);
            const int length = line.length(round, rank);
            if (output + rank * count != source) copy(output + rank * count + begin, source + begin, length, line.place(), line.threads());
            for (int turn = 1; turn < size; turn++) {
                const int peer = turned(rank, turn, size);
                line.await(round, peer);
                copy(output + peer * count + begin, (const T*)line.slot(round, peer, rank), length, line.place(), line.threads());
                line.give_back(round, peer);
            }
        }
    epoch.advance(line.rounds);
}

// Of `source`, the elements that rank p reduces begin p · count in.
template <typename T>
KERNEL reduce_scatter(GIVEN Ranks queues, GIVEN Ranks counts, u32* words, const T* source, T* output, i64 count, i64 slot,
                      i64 tile, int rank, int size, int op, float scale) {
    Epoch epoch(words);
    const Call call{queues, counts, count * size, count, count, (u32)slot, (u32)tile, rank, size};
    const Line line(call, epoch.now);
    if (line.pushes())
        line.push(source);
    else
        take_sums<T>(line, source + rank * count, One<T>{output}, op, scale);
    epoch.advance(line.rounds);
}

// Rank p reduces `slice` of the `count` elements, from p · slice on, into every rank's output. Nobody writes to a rank's
// output before that rank has pushed the same elements of its source, so the two may be the same. A rank leaves when all
// blocks of its peers that write to it are through.
template <typename T>
KERNEL all_reduce(GIVEN Ranks queues, GIVEN Ranks counts, GIVEN Ranks outputs, GIVEN Ranks flags, u32* words, u32* meetings,
                  const T* source, i64 count, i64 slice, i64 slot, i64 tile, int rank, int size, int op, float scale) {
    Epoch epoch(words), meeting(meetings);
    const Call call{queues, counts, count, slice, slice, (u32)slot, (u32)tile, rank, size};
    const Line line(call, epoch.now);
    if (line.pushes())
        line.push(source);
    else
        take_sums<T>(line, source + rank * slice, Every<T>{outputs, rank * slice * (i64)sizeof(T), rank, size}, op, scale);
    meet(flags, rank, size, meeting.now + 1);
    meeting.advance(1);
    epoch.advance(line.rounds);
}
