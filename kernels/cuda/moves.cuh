// How threads move and reduce elements: by words of 16 bytes where all addresses allow it, and one by one elsewhere.
//
// Invariant: `thread` of `threads` takes every `threads`-th word, so an element is read and written by one thread.
//
// Ordering: none of its own. All accesses are weak.
#pragma once

#include "elements.cuh"

constexpr int DEEP = 4;  // words that a thread has on their way at one time

// Words in `bytes`: none where some address is not aligned, so that elements go one by one.
__device__ inline i64 whole_words(u64 addresses, i64 bytes) { return addresses % 16 ? 0 : bytes / 16; }

// `Index` holds the count: 32 bits, where these suffice, save registers.
template <int DEPTH = DEEP, typename T, typename Index>
__device__ void copy(T* into, const T* from, Index count, Index thread, Index threads) {
    const Index words = whole_words((u64)into | (u64)from, count * sizeof(T));
    Index i = thread;
    for (; i + (DEPTH - 1) * threads < words; i += DEPTH * threads) {
        Word found[DEPTH];
#pragma unroll
        for (int deep = 0; deep < DEPTH; deep++) found[deep] = load((const Word*)from + i + deep * threads);
#pragma unroll
        for (int deep = 0; deep < DEPTH; deep++) store((Word*)into + i + deep * threads, found[deep]);
    }
    for (; i < words; i += threads) store((Word*)into + i, load((const Word*)from + i));
    for (i = words * 16 / sizeof(T) + thread; i < count; i += threads) into[i] = from[i];
}

// Where a result goes: to one address, or to `start` bytes into every rank's output.
template <typename T>
struct One {
    T* output;

    // The same from element i on.
    __device__ One from(i64 i) const { return {output + i}; }
    __device__ u64 addresses() const { return (u64)output; }
    __device__ void put(i64 i, Word word) const { store((Word*)output + i, word); }
    __device__ void put(i64 i, T value) const { output[i] = value; }
};

template <typename T>
struct Every {
    const Ranks& outputs;
    i64 start;
    int rank, size;

    __device__ Every from(i64 i) const { return {outputs, start + i * (i64)sizeof(T), rank, size}; }
    __device__ T* at(int turn) const { return (T*)(outputs[turned(rank, turn, size)] + start); }
    __device__ u64 addresses() const { return outputs.together(size) | start; }
    __device__ void put(i64 i, Word word) const {
        for (int turn = 1; turn <= size; turn++) store((Word*)at(turn) + i, word);
    }
    __device__ void put(i64 i, T value) const {
        for (int turn = 1; turn <= size; turn++) at(turn)[i] = value;
    }
};

// What is reduced: elements that begin `start` bytes into each rank's source.
struct Pulled {
    const Ranks& sources;
    i64 start;

    __device__ u64 addresses(int size) const { return sources.together(size) | start; }
    __device__ i64 of(int rank) const { return sources[rank] + start; }
};

// Reduces `count` elements of every rank. A thread writes an element after it has read it from all of them.
template <int DEPTH, typename T, Op OP, typename From, typename Result, typename Index>
__device__ void reduce(From from, Result result, Index count, int size, float scale, Index thread, Index threads) {
    constexpr int depth = sizeof(T) == 1 ? DEPTH / 2 : DEPTH;  // sums take four times the registers of such elements
    const Index words = whole_words(from.addresses(size) | result.addresses(), count * sizeof(T));
    Index i = thread;
    for (; i + (depth - 1) * threads < words; i += depth * threads) {
        Sums<T, OP, Word> sums[depth];
        for (int peer = 0; peer < size; peer++) {
            const Word* words_of_peer = (const Word*)from.of(peer) + i;
            Word found[depth];
#pragma unroll
            for (int deep = 0; deep < depth; deep++) found[deep] = load(words_of_peer + deep * threads);
#pragma unroll
            for (int deep = 0; deep < depth; deep++) sums[deep].add(found[deep]);
        }
#pragma unroll
        for (int deep = 0; deep < depth; deep++) result.put(i + deep * threads, sums[deep].rounded(scale));
    }
    for (; i < words; i += threads) {
        Sums<T, OP, Word> sums;
        for (int peer = 0; peer < size; peer++) sums.add(load((const Word*)from.of(peer) + i));
        result.put(i, sums.rounded(scale));
    }
    for (i = words * 16 / sizeof(T) + thread; i < count; i += threads) {
        Sum<T, OP> sum;
        for (int peer = 0; peer < size; peer++) sum.add(((const T*)from.of(peer))[i]);
        result.put(i, sum.rounded(scale));
    }
}

template <typename T, int DEPTH = DEEP, typename From, typename Result, typename Index>
__device__ void reduce(int op, From from, Result result, Index count, int size, float scale, Index thread,
                       Index threads) {
    if (op == SUM) reduce<DEPTH, T, SUM>(from, result, count, size, scale, thread, threads);
    if (op == MAX) reduce<DEPTH, T, MAX>(from, result, count, size, scale, thread, threads);
    if (op == MIN) reduce<DEPTH, T, MIN>(from, result, count, size, scale, thread, threads);
}
