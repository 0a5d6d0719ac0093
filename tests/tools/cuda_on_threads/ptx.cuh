// CUDA C++ on threads of the host: what stands in for `kernels/cuda/ptx.cuh`, and for the words of CUDA.
//
// Invariant: a word of 16 bytes at another address than a multiple of 16 ends the program, as it does on a GPU.
// Ordering: that of C++: release and acquire are atomic accesses of these names, and a block is a barrier of its threads.
#pragma once

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#define __device__
#define __global__
#define __launch_bounds__(...)
#define GIVEN const
using std::max;
using std::min;

struct Place {
    int x;
};
inline thread_local Place threadIdx, blockIdx, blockDim, gridDim;
inline thread_local pthread_barrier_t *threads_of_block, *last_of_block;

inline void __syncthreads() { pthread_barrier_wait(threads_of_block); }
inline void sync_last(int) { pthread_barrier_wait(last_of_block); }
inline void after_the_one_before() {}
inline void let_the_next_start() {}
#define __shared__ static thread_local  // of what one thread uses
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __trap() { abort(); }
inline unsigned atomicAdd(unsigned* at, unsigned many) { return __atomic_fetch_add(at, many, __ATOMIC_SEQ_CST); }
inline float __int_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;

struct alignas(16) Word {
    u32 part[4];
};

inline u64 nanoseconds() { return 0; }
inline void release(u32* word, u32 value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
inline u32 acquire(const u32* word) {
    sched_yield();
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}
inline const void* aligned(const void* at) {
    if ((u64)at % 16) abort();
    return at;
}
inline Word load(const void* at) { return *(const Word*)aligned(at); }
inline void store(void* at, Word word) { *(Word*)aligned(at) = word; }
// The second word comes last and is looked at first, so that who sees it sees the first one, too.
inline void store_packet(i64 at, u64 low, u64 high) {
    __atomic_store_n((u64*)at, low, __ATOMIC_RELAXED);
    __atomic_store_n((u64*)at + 1, high, __ATOMIC_RELEASE);
}
inline void load_packet(i64 at, u64& low, u64& high) {
    sched_yield();
    high = __atomic_load_n((u64*)at + 1, __ATOMIC_ACQUIRE);
    low = __atomic_load_n((u64*)at, __ATOMIC_RELAXED);
}
inline u16 to_bfloat16(float value) {
    u32 bits;
    memcpy(&bits, &value, 4);
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}
inline u16 to_float16(float) { abort(); }
inline float from_float16(u16) { abort(); }
inline unsigned char* shared_memory() {
    static thread_local unsigned char memory[1 << 16];
    return memory;
}
inline void arm(u64*) {}
inline void bulk_load(void* stage, const void* from, u32 bytes, u64*) {
    if (bytes) memcpy(stage, aligned(from), bytes);
}
inline void bulk_await(u64*, u32) {}
inline void bulk_store(void* into, const void* stage, u32 bytes) {
    if (bytes) memcpy((void*)aligned(into), stage, bytes);
}
template <int>
inline void bulk_read() {}
template <int>
inline void bulk_done() {}
