// All of the PTX: accesses to memory that ranks share, and conversions. CUDA C++ has them in headers that NVRTC lacks.
//
// Invariant: no other file has PTX, so a test may put plain C++ in the place of this one.
//
// Ordering: `after_the_one_before` waits for all that the kernel before has done, where this one was launched early.
// `release` and `acquire` are what their names say, at system scope. `store_packet` and `load_packet` are relaxed
// at system scope, and all of a packet goes at once. `load` and `store` are weak: something else has to order them.
#pragma once

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;

#define GIVEN const __grid_constant__  // a parameter that stays where the launch has put it

struct alignas(16) Word {
    u32 part[4];
};

// A barrier of the last `threads` threads of a block, apart from that of all.
__device__ inline void sync_last(int threads) { asm volatile("bar.sync 1, %0;" ::"r"(threads) : "memory"); }

__device__ inline void after_the_one_before() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ inline void let_the_next_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ inline u64 nanoseconds() {
    u64 now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}

__device__ inline void release(u32* word, u32 value) {
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}

__device__ inline u32 acquire(const u32* word) {
    u32 value;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
    return value;
}

__device__ inline Word load(const void* at) {
    Word word;
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(word.part[0]), "=r"(word.part[1]), "=r"(word.part[2]), "=r"(word.part[3])
                 : "l"(at)
                 : "memory");
    return word;
}

__device__ inline void store(void* at, Word word) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(at), "r"(word.part[0]), "r"(word.part[1]),
                 "r"(word.part[2]), "r"(word.part[3])
                 : "memory");
}

// 16 bytes in one access (PTX ISA 8.3, type b128): who sees one of the two words sees the other.
__device__ inline void store_packet(i64 at, u64 low, u64 high) {
    asm volatile("{ .reg .b128 packet; mov.b128 packet, {%1, %2}; st.relaxed.sys.global.b128 [%0], packet; }" ::"l"(at),
                 "l"(low), "l"(high)
                 : "memory");
}

__device__ inline void load_packet(i64 at, u64& low, u64& high) {
    asm volatile("{ .reg .b128 packet; ld.relaxed.sys.global.b128 packet, [%2]; mov.b128 {%0, %1}, packet; }"
                 : "=l"(low), "=l"(high)
                 : "l"(at)
                 : "memory");
}

__device__ inline u16 to_bfloat16(float value) {
    u16 bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

__device__ inline u16 to_float16(float value) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

__device__ inline float from_float16(u16 bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

// Bulk copies through shared memory, which one thread starts and no register holds. Addresses and sizes are multiples of
// 16 bytes. Stores are counted in groups, the oldest first. From sm_90 on; elsewhere a kernel with them ends in an error.
#if __CUDA_ARCH__ >= 900
#define BULK(...) asm volatile(__VA_ARGS__)
#else
#define BULK(...) __trap()
#endif

__device__ inline unsigned char* shared_memory() {
    extern __shared__ __align__(128) unsigned char memory[];
    return memory;
}

__device__ inline u32 in_shared(const void* at) { return (u32)__cvta_generic_to_shared(at); }

// A barrier for one load at a time.
__device__ inline void arm(u64* arrival) {
    BULK("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(in_shared(arrival)) : "memory");
    BULK("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ inline void bulk_load(void* stage, const void* from, u32 bytes, u64* arrival) {
    BULK("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(in_shared(arrival)), "r"(bytes) : "memory");
    if (bytes > 0)
        BULK("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(in_shared(stage)),
             "l"(from), "r"(bytes), "r"(in_shared(arrival))
             : "memory");
}

// Until the load number `turn` of a barrier, counted from 0, has arrived.
__device__ inline void bulk_await(u64* arrival, u32 turn) {
    u32 has_arrived = 0;
    while (!has_arrived)
        BULK("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
             : "=r"(has_arrived)
             : "r"(in_shared(arrival)), "r"(turn & 1)
             : "memory");
}

// A store of its own group. What this thread has seen of `into` comes before.
__device__ inline void bulk_store(void* into, const void* stage, u32 bytes) {
    BULK("fence.proxy.async.global;" ::: "memory");
    if (bytes > 0)
        BULK("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(into), "r"(in_shared(stage)), "r"(bytes)
             : "memory");
    BULK("cp.async.bulk.commit_group;" ::: "memory");
}

// Until all stores but the last `MORE` have read their stages.
template <int MORE>
__device__ inline void bulk_read() {
    BULK("cp.async.bulk.wait_group.read %0;" ::"n"(MORE) : "memory");
}

// Until all stores but the last `MORE` are done. A release of this thread may tell of them.
template <int MORE>
__device__ inline void bulk_done() {
    BULK("cp.async.bulk.wait_group %0;" ::"n"(MORE) : "memory");
    BULK("fence.proxy.async.global;" ::: "memory");
}
