// Every call of `kernels/cuda/` on threads: a grid a rank, with all counts, alignments and reductions that matter to the
// kernels. Prints the calls whose result is wrong, and exits with 1 if there are any. Epochs go on from call to call.
#include "moves.cuh"

namespace small {
#include "ll.cu"
}
namespace large {
#include "fused.cu"
}
#undef KERNEL
namespace queued {
#include "queues.cu"
}

constexpr int GRID = 2, THREADS = 8, SLOT = 512, PART = SLOT / GRID, TILE = 48;  // packets, and elements of a tile
int wrong = 0;

void launch(int size, int grid, const std::function<void(int)>& kernel) {
    std::vector<pthread_barrier_t> blocks(size * grid), last(size * grid);
    for (auto& each : last) pthread_barrier_init(&each, nullptr, THREADS - 2);
    std::vector<std::thread> threads;
    for (int block = 0; block < size * grid; block++) {
        pthread_barrier_init(&blocks[block], nullptr, THREADS);
        for (int thread = 0; thread < THREADS; thread++)
            threads.emplace_back([&, block, thread] {
                threadIdx = {thread}, blockIdx = {block % grid}, blockDim = {THREADS}, gridDim = {grid};
                threads_of_block = &blocks[block], last_of_block = &last[block];
                kernel(block / grid);
            });
    }
    for (auto& each : threads) each.join();
}

i64 memory(i64 bytes) {
    void* made = aligned_alloc(256, (bytes + 511) / 256 * 256);
    memset(made, 0x5A, (bytes + 511) / 256 * 256);
    return (i64)made;
}

i64 zeros(i64 bytes) { return (i64)memset((void*)memory(bytes), 0, bytes); }

Ranks given(const std::vector<i64>& addresses) {
    Ranks made{{}, addresses.size() % 2 ? addresses.data() : nullptr};  // by value, or in a table
    std::copy(addresses.begin(), addresses.end(), made.near);
    return made;
}

template <typename T>
T element(int turn, int rank, i64 i) {
    const u32 bits = (u32)(turn * 40503 + rank * 7919 + i * 2654435761u) >> 7;
    T made;
    if constexpr (sizeof(T) == 4)
        made = (T)((int)(bits % 4001) - 2000);
    else
        made = (T)(bits % 11);
    return made;
}

// Ranks that share memory for small and large calls, one call after another.
template <typename T>
struct World {
    int size, turn = 0, grid = GRID;
    std::vector<i64> spaces, stages, queues, flags, counts, of_small, of_queued, of_large, parts;

    explicit World(int size) : size(size) {
        for (int rank = 0; rank < size; rank++) {
            spaces.push_back(zeros(2 * size * SLOT * 16));
            stages.push_back(zeros(2 * GRID * TILE * sizeof(T)));
            queues.push_back(zeros(GRID * size * 4 * TILE * sizeof(T)));
            flags.push_back(zeros(GRID * size * 4));
            counts.push_back(zeros(GRID * size * 2 * 4));
            of_small.push_back(zeros(GRID * 4));
            of_queued.push_back(zeros(GRID * 4));
            of_large.push_back(zeros(GRID * 4));
        }
    }

    // `whole`: of the operand that peers address, elements; `part`: of the other, which begins at `start(rank)` within.
    template <typename Start, typename Call, typename Due>
    void run(const char* name, i64 whole, i64 part, int off, bool within, bool into_whole, Start start, Call call, Due due) {
        std::vector<i64> wholes;
        parts.clear();
        turn++;
        for (int rank = 0; rank < size; rank++) {
            wholes.push_back(memory(whole * sizeof(T) + 64) + off * sizeof(T));
            const i64 own = memory(part * sizeof(T) + 64) + (rank == size - 1 ? off : 0) * sizeof(T);
            parts.push_back(within ? wholes[rank] + start(rank) * (i64)sizeof(T) : own);
            T* source = (T*)(into_whole ? parts : wholes)[rank];
            for (i64 i = 0; i < (into_whole ? part : whole); i++) source[i] = element<T>(turn, rank, i);
        }
        launch(size, grid, [&](int rank) { call(rank, wholes, (T*)parts[rank]); });
        for (int rank = 0; rank < size; rank++) {
            const T* output = (const T*)(into_whole ? wholes : parts)[rank];
            const i64 count = into_whole ? whole : part;
            for (i64 i = 0; i < count; i++) {
                const T should = due(rank, i);
                if (memcmp(&should, &output[i], sizeof(T)) == 0) continue;
                printf("%s: %d ranks, %lld elements of %zu bytes, %d off, %s: rank %d has another element %lld\n", name, size,
                       part, sizeof(T), off, within ? "in place" : "apart", rank, i);
                wrong++;
                break;
            }
        }
    }

    T reduced(int op, i64 i) {
        T total = element<T>(turn, 0, i);
        for (int rank = 1; rank < size; rank++) {
            const T value = element<T>(turn, rank, i);
            total = op == SUM ? (T)(total + value) : op == MAX ? max(total, value) : min(total, value);
        }
        return total;
    }

    void calls(i64 count, int off, bool within, int op) {
        const bool fits = count * (i64)sizeof(T) <= SLOT * 12;
        grid = 1 + turn % GRID;
        auto chunk = [&](int rank) { return rank * count; };
        auto gathered = [&](int, i64 i) { return element<T>(turn, i / count, i % count); };
        auto scattered = [&](int rank, i64 i) { return reduced(op, rank * count + i); };
        auto everywhere = [&](int, i64 i) { return reduced(op, i); };
        auto none = [](int) { return 0ll; };
        using Peers = std::vector<i64>;
        grid = min((i64)grid, (count * (i64)sizeof(T) + 11) / 12);  // no block of a small call is without packets
        if (fits) {
            run("all-gather by LL", size * count, count, off, within, true, chunk, [&](int rank, Peers& peers, T* source) {
                small::all_gather<T>(given(spaces), (u32*)of_small[rank], source, (T*)peers[rank], count, rank, size, SLOT, PART);
            }, gathered);
            run("reduce-scatter by LL", size * count, count, off, within, false, chunk, [&](int rank, Peers& peers, T* output) {
                small::reduce_all<T>(given(spaces), (u32*)of_small[rank], (T*)peers[rank], output, count, count, rank, size, SLOT, PART, op, 1);
            }, scattered);
            run("all-reduce by LL", count, count, off, within, false, none, [&](int rank, Peers& peers, T* output) {
                small::reduce_all<T>(given(spaces), (u32*)of_small[rank], (T*)peers[rank], output, count, 0, rank, size, SLOT, PART, op, 1);
            }, everywhere);
        }
        run("all-gather", size * count, count, off, within, true, chunk, [&](int rank, Peers& peers, T* source) {
            large::all_gather<T>(given(peers), given(flags), (u32*)of_large[rank], source, rank * count * sizeof(T), count, rank, size);
        }, gathered);
        run("reduce-scatter", size * count, count, off, within, false, chunk, [&](int rank, Peers& peers, T* output) {
            large::reduce_scatter<T>(given(peers), given(flags), (u32*)of_large[rank], output, rank * count * sizeof(T), count, rank, size, op, 1);
        }, scattered);
        const i64 slice = ((count + size - 1) / size + 15) / 16 * 16;
        run("all-reduce", count, count, off, within, false, none, [&](int rank, Peers& peers, T* output) {
            const i64 begin = min(rank * slice, count);
            large::all_reduce<T>(given(peers), given(parts), given(flags), (u32*)of_large[rank], begin * sizeof(T), min(slice, count - begin), rank, size, op, 1);
        }, everywhere);
        run("staged all-reduce", count, count, off, within, false, none, [&](int rank, Peers& peers, T* output) {
            large::all_reduce_staged<T>(given(peers), given(stages), given(flags), (u32*)of_large[rank], output, count, slice, TILE, rank, size, op, 1);
        }, everywhere);
        if (size > 1 && off == 0) {
            const i64 slot = TILE * sizeof(T), tile = turn % 3 ? TILE : TILE / 3;
            if (count * sizeof(T) % 16 == 0) run("reduce-scatter by queues", size * count, count, off, within, false, chunk, [&](int rank, Peers& peers, T* output) {
                queued::reduce_scatter<T>(given(queues), given(counts), (u32*)of_queued[rank], (T*)peers[rank], output, count, slot, tile, rank, size, op, 1);
            }, scattered);
            run("all-reduce by queues", count, count, off, within, false, none, [&](int rank, Peers& peers, T*) {
                queued::all_reduce<T>(given(queues), given(counts), given(parts), given(flags), (u32*)of_queued[rank], (u32*)of_large[rank], (T*)peers[rank], count, slice, slot, tile, rank, size, op, 1);
            }, everywhere);
        }
        launch(size, 1, [&](int rank) { large::barrier(given(flags), (u32*)of_large[rank], rank, size); });
    }
};

template <typename T>
void all(int size) {
    World<T> world(size);
    int turn = 0;
    for (i64 count : {1, 7, 8, 16, 17, 257, 1000})
        for (int off : {0, 1, 3}) world.calls(count, off, ++turn % 2, turn / 2 % 3);
}

int main() {
    all<float>(2);
    all<u8>(3);
    all<int>(1);
    all<u16>(4);
    return wrong > 0;
}
