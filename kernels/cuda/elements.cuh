// Elements of each type as the numbers that are added, and back.
//
// Invariant: floats are added in fp32 and integers in 32 bits, in group order, and rounded once, to the nearest with ties
// to even. No header of CUDA is needed, so NVRTC alone compiles this.
//
// Ordering: none of its own.
#pragma once

#include "signals.cuh"

struct Bfloat16 {
    u16 bits;
};
struct Float16 {
    u16 bits;
};

template <typename T>
struct Number {
    using type = u32;  // sums of integers wrap
    __device__ static type of(T value) { return (u32)(int)value; }
    __device__ static T to(type value, float) { return (T)value; }
    __device__ static type least() { return 0x80000000u; }
    __device__ static type most() { return 0x7FFFFFFFu; }
    __device__ static type larger(type a, type b) { return (int)a > (int)b ? a : b; }
    __device__ static type smaller(type a, type b) { return (int)a < (int)b ? a : b; }
};

struct Float {
    using type = float;
    __device__ static float least() { return __int_as_float(0xFF800000); }
    __device__ static float most() { return __int_as_float(0x7F800000); }
    __device__ static float larger(float a, float b) { return fmaxf(a, b); }
    __device__ static float smaller(float a, float b) { return fminf(a, b); }
};

template <>
struct Number<float> : Float {
    __device__ static float of(float value) { return value; }
    __device__ static float to(float value, float scale) { return value * scale; }
};

template <>
struct Number<Bfloat16> : Float {
    __device__ static float of(Bfloat16 value) { return __int_as_float((u32)value.bits << 16); }
    __device__ static Bfloat16 to(float value, float scale) { return {to_bfloat16(value * scale)}; }
};

template <>
struct Number<Float16> : Float {
    __device__ static float of(Float16 value) { return from_float16(value.bits); }
    __device__ static Float16 to(float value, float scale) { return {to_float16(value * scale)}; }
};

enum Op { SUM, MAX, MIN };

template <typename T, Op OP>
struct Sum {
    using N = Number<T>;
    typename N::type total = OP == MAX ? N::least() : OP == MIN ? N::most() : 0;

    __device__ void add(T value) {
        const auto number = N::of(value);
        total = OP == MAX ? N::larger(total, number) : OP == MIN ? N::smaller(total, number) : total + number;
    }
    __device__ T rounded(float scale) const { return N::to(total, scale); }
};

// As many elements as fill `Bytes`.
template <typename T, typename Bytes>
union Pack {
    static constexpr int COUNT = sizeof(Bytes) / sizeof(T);
    Bytes bytes;
    T each[COUNT];
    __device__ Pack() {}
};

// The sums of a pack. Each input is added in turn.
template <typename T, Op OP, typename Bytes>
struct Sums {
    Sum<T, OP> each[Pack<T, Bytes>::COUNT];

    __device__ void add(Bytes bytes) {
        Pack<T, Bytes> given;
        given.bytes = bytes;
#pragma unroll
        for (int i = 0; i < Pack<T, Bytes>::COUNT; i++) each[i].add(given.each[i]);
    }
    __device__ Bytes rounded(float scale) const {
        Pack<T, Bytes> made;
#pragma unroll
        for (int i = 0; i < Pack<T, Bytes>::COUNT; i++) made.each[i] = each[i].rounded(scale);
        return made.bytes;
    }
};
