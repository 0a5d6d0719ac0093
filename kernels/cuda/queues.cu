// The largest reductions go through queues (FIFO) in the receiver's memory: all data is pushed, as writes over NVLink are
// faster than reads, and no rank waits for another to come to the call.
//
// One thread of a block pushes tiles of the source into the queues of its peers, by bulk copies that take no registers.
// The warps behind its own take the tiles that came, and reduce them. The pusher of block b feeds the takers of block b on
// each peer: they share a queue of SLOTS tiles and two words, which count the tiles that were pushed and taken.
//
// Invariant: tile n of a queue lies in slot n mod SLOTS. It is pushed when tile n - SLOTS has been taken, also where that
// was in a call before. A rank pushes and takes equally often on all queues of a block in a call, so that one epoch a
// block says how often. The grid is the same on all ranks, and all its blocks run at one time. Source, slices and tiles
// begin at multiples of 16 bytes.
//
// Ordering: a count is stored by a release and looked at by an acquire, both at system scope, by one thread. The pusher
// tells of a tile when its bulk copy is done. `sync_last` puts what the other takers read before their release, and what they
// do next behind the acquire.
#include "moves.cuh"

// Registers for two blocks a multiprocessor: kernels of two communicators may run at one time. Sums want more of them than
// larger blocks would get.
#define KERNEL __global__ void __launch_bounds__(320, 2)

constexpr int SLOTS = 4;                          // of a queue
constexpr int STAGES = 3, AHEAD = 1, BEHIND = 2;  // stages of a block; tiles that are loaded ahead, and told of behind
constexpr int PUSHER = 32;                        // threads: a warp, of which one pushes

// A call as all of its blocks see it. `slot`: bytes of a slot and of a stage; `tile`: elements of a tile, which fit into
// it. Slice p of the `count` elements begins p · slice in.
struct Call {
    const Ranks& queues;
    const Ranks& counts;
    i64 count, slice;
    u32 slot, tile;
    int rank, size;
};

// One block's place in the tiles.
struct Line {
    const Call& call;
    u32 now, rounds;

    __device__ Line(const Call& call, u32 now) : call(call), now(now) {
        const i64 all = (i64)call.tile * gridDim.x;
        rounds = (call.slice + all - 1) / all;
    }

    __device__ i64 begin(u32 round) const { return ((i64)round * gridDim.x + blockIdx.x) * call.tile; }
    // Elements of this block's tile in the slice of a rank.
    __device__ int length(u32 round, int peer) const {
        return max(0ll, min((i64)call.tile, min(call.slice, call.count - peer * call.slice) - begin(round)));
    }
    // In the memory of `receiver`: the slot for what `sender` pushes in a round.
    __device__ i64 slot(u32 round, int sender, int receiver) const {
        const u32 queue = turned(sender, call.size - receiver, call.size) - 1;  // no rank has a queue for itself
        return call.queues[receiver] +
               (i64)((blockIdx.x * (call.size - 1) + queue) * SLOTS + (now + round) % SLOTS) * call.slot;
    }
    // In the memory of `of`: how many tiles between it and `peer` were pushed to it, and how many of its own were taken.
    __device__ u32* pushed(int of, int peer) const { return (u32*)call.counts[of] + (blockIdx.x * call.size + peer) * 2; }
    __device__ u32* taken(int of, int peer) const { return pushed(of, peer) + 1; }
};

// By one thread. Pushes a tile to each peer in turn, round by round.
template <typename T>
__device__ void push(const Line& line, const T* source) {
    __shared__ u64 arrivals[STAGES];
    for (int stage = 0; stage < STAGES; stage++) arm(arrivals + stage);
    const Call& call = line.call;
    const u32 peers = call.size - 1, pushes = line.rounds * peers;
    auto peer = [&](u32 turn) { return turned(call.rank, 1 + turn % peers, call.size); };
    auto from = [&](u32 turn) { return source + peer(turn) * call.slice + line.begin(turn / peers); };
    auto length = [&](u32 turn) { return line.length(turn / peers, peer(turn)); };
    auto whole = [&](u32 turn) { return (u32)(length(turn) * sizeof(T) / 16 * 16); };
    auto stage = [&](u32 turn) { return shared_memory() + turn % STAGES * call.slot; };
    auto tell = [&](u32 turn) { release(line.pushed(peer(turn), call.rank), line.now + turn / peers + 1); };
    for (u32 next = 0; next < pushes + AHEAD; next++) {
        if (next < pushes) {
            bulk_read<STAGES - 1 - AHEAD>();
            bulk_load(stage(next), from(next), whole(next), arrivals + next % STAGES);
        }
        if (next < AHEAD) continue;
        const u32 turn = next - AHEAD;
        wait(line.taken(call.rank, peer(turn)), line.now + turn / peers + 1 - SLOTS);
        bulk_await(arrivals + turn % STAGES, turn / STAGES);
        T* into = (T*)line.slot(turn / peers, call.rank, peer(turn));
        for (int i = whole(turn) / sizeof(T); i < length(turn); i++) into[i] = from(turn)[i];
        bulk_store(into, stage(turn), whole(turn));
        bulk_done<BEHIND>();
        if (turn >= BEHIND) tell(turn - BEHIND);
    }
    bulk_done<0>();
    for (u32 turn = pushes > BEHIND ? pushes - BEHIND : 0; turn < pushes; turn++) tell(turn);
}

// What is reduced: this rank's own elements, and what its peers have pushed.
struct Queued {
    const Line& line;
    u32 round;
    i64 own;

    __device__ i64 of(int peer) const { return peer == line.call.rank ? own : line.slot(round, peer, line.call.rank); }
    __device__ u64 addresses(int) const { return own; }  // slots are aligned
};

// By all takers of a block.
template <typename T, typename Result>
__device__ void take(const Line& line, const T* own, Result result, int op, float scale) {
    const Call& call = line.call;
    const int thread = threadIdx.x - PUSHER, threads = blockDim.x - PUSHER;
    for (u32 round = 0; round < line.rounds; round++) {
        if (thread < call.size && thread != call.rank) wait(line.pushed(call.rank, thread), line.now + round + 1);
        sync_last(threads);
        const i64 begin = line.begin(round);
        reduce<T>(op, Queued{line, round, (i64)(own + begin)}, result.from(begin), line.length(round, call.rank), call.size,
                  scale, thread, threads);
        sync_last(threads);
        if (thread < call.size && thread != call.rank) release(line.taken(thread, call.rank), line.now + round + 1);
    }
}

// Of `source`, the elements that rank p reduces begin p · count in.
template <typename T>
KERNEL reduce_scatter(GIVEN Ranks queues, GIVEN Ranks counts, u32* words, const T* source, T* output, i64 count, i64 slot,
                      i64 tile, int rank, int size, int op, float scale) {
    Epoch epoch(words);
    const Call call{queues, counts, count * size, count, (u32)slot, (u32)tile, rank, size};
    const Line line(call, epoch.now);
    if (threadIdx.x == 0) push(line, source);
    if (threadIdx.x >= PUSHER) take(line, source + rank * count, One<T>{output}, op, scale);
    epoch.advance(line.rounds);
}

// Rank p reduces `slice` of the `count` elements, from p · slice on, into every rank's output. Nobody writes to a rank's
// output before that rank has pushed the same elements of its source, so the two may be the same. A rank leaves when all
// blocks of its peers that write to it are through.
template <typename T>
KERNEL all_reduce(GIVEN Ranks queues, GIVEN Ranks counts, GIVEN Ranks outputs, GIVEN Ranks flags, u32* words, u32* meetings,
                  const T* source, i64 count, i64 slice, i64 slot, i64 tile, int rank, int size, int op, float scale) {
    Epoch epoch(words), meeting(meetings);
    const Call call{queues, counts, count, slice, (u32)slot, (u32)tile, rank, size};
    const Line line(call, epoch.now);
    if (threadIdx.x == 0) push(line, source);
    const Every<T> every{outputs, rank * slice * (i64)sizeof(T), rank, size};
    if (threadIdx.x >= PUSHER) take(line, source + rank * slice, every, op, scale);
    meet(flags, rank, size, meeting.now + 1);
    meeting.advance(1);
    epoch.advance(line.rounds);
}
