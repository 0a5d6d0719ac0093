// Small calls without a barrier (LL, "low latency"): every eight bytes of data travel with the number of their call.
//
// A rank stores packets into the space of each peer, and polls its own space for theirs. A packet has 16 bytes: two words
// of 64 bits, each of 32 bits of data and the epoch. The space of a rank has two halves, which calls take in turns, and
// in each half a slot of `slot` packets for each sender.
//
// Invariant: a rank stores into a half again only in the call after the next. It has then received the next call from
// every peer, so every peer has ended this one, and has read the half. That needs a packet from every rank to every rank
// in each call, so `count` is at least 1.
//
// Ordering: data and epoch share one word of 64 bits, which is stored and loaded at once (relaxed, at system scope). No
// other memory is shared, so nothing needs a release.
#include "elements.cuh"

__device__ void send(i64 space, u64 data, u32 epoch) {
    const u64 tag = (u64)epoch << 32;
    store_pair(space, tag | (u32)data, tag | data >> 32);
}

__device__ u64 receive(i64 space, u32 epoch) {
    u64 low, high;
    Patience patience;
    while (true) {
        load_pair(space, low, high);
        if ((u32)(low >> 32) == epoch && (u32)(high >> 32) == epoch) return (u64)(u32)low | high << 32;
        patience.check();
    }
}

// Where the packets of `sender` begin in a rank's space.
__device__ i64 slot_of(i64 space, u32 epoch, int sender, int size, i64 slot) {
    return space + ((epoch & 1) * size + sender) * slot * 16;
}

// Eight bytes of `from` at packet i, of which elements from `count` on are not there.
template <typename T>
__device__ u64 packed(const T* from, i64 i, i64 count) {
    constexpr int each = Pack<T, u64>::COUNT;
    if ((i + 1) * each <= count && (u64)from % 8 == 0) return ((const u64*)from)[i];
    Pack<T, u64> found;
    found.bytes = 0;
#pragma unroll
    for (int at = 0; at < each; at++)
        if (i * each + at < count) found.each[at] = from[i * each + at];
    return found.bytes;
}

template <typename T>
__device__ void unpack(T* into, i64 i, i64 count, u64 data) {
    constexpr int each = Pack<T, u64>::COUNT;
    if ((i + 1) * each <= count && (u64)into % 8 == 0) {
        ((u64*)into)[i] = data;
        return;
    }
    Pack<T, u64> found;
    found.bytes = data;
#pragma unroll
    for (int at = 0; at < each; at++)
        if (i * each + at < count) into[i * each + at] = found.each[at];
}

// Sends packets of `count` elements to each peer: peer p gets what begins p · stride elements into `source`.
template <typename T>
__device__ void send_all(const i64* spaces, const T* source, i64 count, i64 stride, int rank, int size, i64 slot,
                         u32 epoch) {
    const i64 packets = (count * sizeof(T) + 7) / 8, step = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < packets; i += step)
        for (int turn = 1; turn < size; turn++) {
            const int peer = (rank + turn) % size;
            send(slot_of(spaces[peer], epoch, rank, size, slot) + i * 16, packed(source + peer * stride, i, count), epoch);
        }
}

// spaces: address of each rank's space; words: this rank's epoch; source: `count` elements; output: size · count.
template <typename T>
__global__ void all_gather(const i64* spaces, u32* words, const T* source, T* output, i64 count, int rank, int size,
                           i64 slot) {
    Epoch epoch(words);
    const u32 now = epoch.now + 1;
    send_all(spaces, source, count, 0, rank, size, slot, now);
    const i64 packets = (count * sizeof(T) + 7) / 8, step = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < packets; i += step) {
        if (output + rank * count != source) unpack(output + rank * count, i, count, packed(source, i, count));
        for (int turn = 1; turn < size; turn++) {
            const int peer = (rank + turn) % size;
            const u64 data = receive(slot_of(spaces[rank], now, peer, size, slot) + i * 16, now);
            unpack(output + peer * count, i, count, data);
        }
    }
    epoch.advance(1);
}

template <typename T, Op OP>
__device__ void reduce(const i64* spaces, const T* own, T* output, i64 count, int rank, int size, i64 slot, float scale,
                       u32 now) {
    const i64 packets = (count * sizeof(T) + 7) / 8, step = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < packets; i += step) {
        Sums<T, OP, u64> sums;
        for (int peer = 0; peer < size; peer++)
            sums.add(peer == rank ? packed(own, i, count)
                                  : receive(slot_of(spaces[rank], now, peer, size, slot) + i * 16, now));
        unpack(output, i, count, sums.rounded(scale));
    }
}

// Reduces `count` elements. Of `source`, rank p's begin p · stride elements in: stride is `count` for a reduce-scatter,
// and 0 for an all-reduce. An element is read and written by one thread, so output and source may be the same.
template <typename T>
__global__ void reduce_all(const i64* spaces, u32* words, const T* source, T* output, i64 count, i64 stride, int rank,
                           int size, i64 slot, int op, float scale) {
    Epoch epoch(words);
    const u32 now = epoch.now + 1;
    send_all(spaces, source, count, stride, rank, size, slot, now);
    const T* own = source + rank * stride;
    if (op == SUM) reduce<T, SUM>(spaces, own, output, count, rank, size, slot, scale, now);
    if (op == MAX) reduce<T, MAX>(spaces, own, output, count, rank, size, slot, scale, now);
    if (op == MIN) reduce<T, MIN>(spaces, own, output, count, rank, size, slot, scale, now);
    epoch.advance(1);
}
