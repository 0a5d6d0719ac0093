// Small calls without a barrier (LL, "low latency"): every twelve bytes of data travel with the number of their call.
//
// A rank stores packets into the space of each peer, and polls its own space for theirs. A packet has 16 bytes: data, and
// the epoch in the last four. The space of a rank has two halves, which calls take in turns, and
// in each half a slot of `slot` packets for each sender, and in each slot a part of `part` packets for each block.
//
// Invariant: a block stores into its part of a half again only in its call after the next. It has then received the next
// call from the same block of every peer, so each of these has ended this call, and has read its part. That needs a
// packet from every block to every peer in each call, so `count` is at least 1 and no block is without packets.
//
// Ordering: data and epoch are stored and loaded in one access of 16 bytes (relaxed, at system scope). No other memory is
// shared, so nothing needs a release.
#include "elements.cuh"

// The data of a packet.
struct Twelve {
    u32 part[3];
};

__device__ void send(i64 at, Twelve data, u32 epoch) {
    store_packet(at, data.part[0] | (u64)data.part[1] << 32, data.part[2] | (u64)epoch << 32);
}

__device__ Twelve receive(i64 at, u32 epoch) {
    u64 low, high;
    Patience patience;
    while (true) {
        load_packet(at, low, high);
        if ((u32)(high >> 32) == epoch) return {(u32)low, (u32)(low >> 32), (u32)high};
        patience.check();
    }
}

// Where this block's packets of `sender` begin in a rank's space.
__device__ i64 part_of(i64 space, u32 epoch, int sender, int size, i64 slot, i64 part) {
    return space + (((epoch & 1) * size + sender) * slot + blockIdx.x * part) * 16;
}

// The packets of this block: `count` from `first` on. A grid has at most as many blocks as packets, so each has some.
struct Packets {
    u32 first, count;

    __device__ explicit Packets(i64 bytes) {
        const u32 all = (bytes + 11) / 12;  // of a small call, so the products fit
        first = all * blockIdx.x / gridDim.x;
        count = all * (blockIdx.x + 1) / gridDim.x - first;
    }
};

// Twelve bytes of `from` at packet i, of which elements from `count` on are not there.
template <typename T>
__device__ Twelve packed(const T* from, i64 i, i64 count) {
    constexpr int each = Pack<T, Twelve>::COUNT;
    Pack<T, Twelve> found;
    if ((i + 1) * each <= count && (u64)from % 4 == 0) {
        const u32* words = (const u32*)from + i * 3;
        found.bytes = {words[0], words[1], words[2]};
        return found.bytes;
    }
    found.bytes = {0, 0, 0};
#pragma unroll
    for (int at = 0; at < each; at++)
        if (i * each + at < count) found.each[at] = from[i * each + at];
    return found.bytes;
}

template <typename T>
__device__ void unpack(T* into, i64 i, i64 count, Twelve data) {
    constexpr int each = Pack<T, Twelve>::COUNT;
    if ((i + 1) * each <= count && (u64)into % 4 == 0) {
        u32* words = (u32*)into + i * 3;
        words[0] = data.part[0], words[1] = data.part[1], words[2] = data.part[2];
        return;
    }
    Pack<T, Twelve> found;
    found.bytes = data;
#pragma unroll
    for (int at = 0; at < each; at++)
        if (i * each + at < count) into[i * each + at] = found.each[at];
}

// Sends packets of `count` elements to each peer: peer p gets what begins p · stride elements into `source`.
template <typename T>
__device__ void send_all(const Ranks& spaces, const T* source, i64 count, i64 stride, int rank, int size, i64 slot,
                         i64 part, u32 epoch) {
    const Packets own(count * sizeof(T));
    for (u32 i = threadIdx.x; i < own.count; i += blockDim.x)
        for (int turn = 1; turn < size; turn++) {
            const int peer = turned(rank, turn, size);
            send(part_of(spaces[peer], epoch, rank, size, slot, part) + (i64)i * 16,
                 packed(source + peer * stride, own.first + i, count), epoch);
        }
}

// spaces: address of each rank's space; words: this rank's epochs; source: `count` elements; output: size · count.
template <typename T>
__global__ void all_gather(GIVEN Ranks spaces, u32* words, const T* source, T* output, i64 count, int rank, int size,
                           i64 slot, i64 part) {
    after_the_one_before();
    Epoch epoch(words);
    const u32 now = epoch.now + 1;
    send_all(spaces, source, count, 0, rank, size, slot, part, now);
    const Packets own(count * sizeof(T));
    if (output + rank * count != source)
        for (u32 i = own.first + threadIdx.x; i < own.first + own.count; i += blockDim.x)
            unpack(output + rank * count, i, count, packed(source, i, count));
    for (u32 i = threadIdx.x; i < own.count; i += blockDim.x)
        for (int turn = 1; turn < size; turn++) {
            const int peer = turned(rank, turn, size);
            const Twelve data = receive(part_of(spaces[rank], now, peer, size, slot, part) + (i64)i * 16, now);
            unpack(output + peer * count, own.first + i, count, data);
        }
    let_the_next_start();
    epoch.advance(1);
}

template <typename T, Op OP>
__device__ void reduce(const Ranks& spaces, const T* own, T* output, i64 count, int rank, int size, i64 slot, i64 part,
                       float scale, u32 now) {
    const Packets packets(count * sizeof(T));
    for (u32 i = threadIdx.x; i < packets.count; i += blockDim.x) {
        Sums<T, OP, Twelve> sums;
        for (int peer = 0; peer < size; peer++)
            sums.add(peer == rank ? packed(own, packets.first + i, count)
                                  : receive(part_of(spaces[rank], now, peer, size, slot, part) + (i64)i * 16, now));
        unpack(output, packets.first + i, count, sums.rounded(scale));
    }
}

// Reduces `count` elements. Of `source`, rank p's begin p · stride elements in: stride is `count` for a reduce-scatter,
// and 0 for an all-reduce. An element is read and written by one thread, so output and source may be the same.
template <typename T>
__global__ void reduce_all(GIVEN Ranks spaces, u32* words, const T* source, T* output, i64 count, i64 stride, int rank,
                           int size, i64 slot, i64 part, int op, float scale) {
    after_the_one_before();
    Epoch epoch(words);
    const u32 now = epoch.now + 1;
    send_all(spaces, source, count, stride, rank, size, slot, part, now);
    const T* own = source + rank * stride;
    if (op == SUM) reduce<T, SUM>(spaces, own, output, count, rank, size, slot, part, scale, now);
    if (op == MAX) reduce<T, MAX>(spaces, own, output, count, rank, size, slot, part, scale, now);
    if (op == MIN) reduce<T, MIN>(spaces, own, output, count, rank, size, slot, part, scale, now);
    let_the_next_start();
    epoch.advance(1);
}
