// Graphs of captures that have calls, what they were instantiated to, and when these were launched first and last.
//
// CUDA may give the address of a graph that is gone to another, so each that comes or goes unknown is forgotten.

#include <stddef.h>

#include "cudart.h"
#include "observer.h"

enum { MOST = 1 << 13, FULL = MOST / 4 * 3 };

// What is known of an address: the fact of the graph. Those that were forgotten keep their place, with NONE.
struct table {
  struct known {
    void *address;
    uint32_t fact;
  } places[MOST];
  uint32_t taken;
};
static struct table graphs, executables;
static uint32_t launchable;  // executables that are known, or were. Without one, a launch looks nothing up.

// Its place, or the free one where it would be. The caller holds the mutex.
static struct known *place_of(struct table *table, void *address) {
  for (uint64_t hash = (uint64_t)address * 0x9e3779b97f4a7c15u >> 32;; hash++) {
    struct known *place = &table->places[hash % MOST];
    if (!place->address || place->address == address) return place;
  }
}

static uint32_t fact_of(struct table *table, void *address) {
  struct known *place = place_of(table, address);
  return place->address ? place->fact : NONE;
}

static void put(struct table *table, void *address, uint32_t fact) {
  struct known *place = place_of(table, address);
  bool is_new = !place->address;
  if (!address || (is_new && (fact == NONE || table->taken == FULL))) return;
  *place = (struct known){address, fact};
  table->taken += is_new;
}

// The caller holds the mutex, as for what it calls.
void know_graph(void *graph, uint32_t fact) { put(&graphs, graph, fact); }

void forget_graphs(void) {
  graphs = executables = (struct table){0};
  launchable = 0;
}

// --- What came of a call

static int made(struct table *table, void *address, void *graph, int result) {
  lock();
  uint32_t fact = result ? NONE : fact_of(&graphs, graph);
  if (address) put(table, address, fact);
  if (table == &executables && fact != NONE) __atomic_store_n(&launchable, 1, __ATOMIC_RELAXED);
  unlock();
  return result;
}

// Forgets before CUDA does: another thread may get the address at once.
static void *gone(struct table *table, void *address) {
  lock();
  put(table, address, NONE);
  unlock();
  return address;
}

// The caller holds the mutex. Returns whether it is the first launch.
static bool count_launch(uint32_t fact, uint64_t when) {
  struct fact *graph = record(fact);
  graph->legacy = when;
  if (graph->calls++) return false;
  graph->symmetric = when;
  return true;
}

static void name_launch(uint32_t fact) {
  uint32_t where = site();
  lock();
  record(fact)->name = where;
  unlock();
}

static void note_launch(void *executable, uint64_t when) {
  lock();
  uint32_t fact = fact_of(&executables, executable);
  bool is_first = fact != NONE && count_launch(fact, when);
  unlock();
  if (is_first) name_launch(fact);
}

// The time is that before the launch: from then on the graph may run.
static int launched(void *caller, void *executable, uint64_t when, int result) {
  if (!__atomic_load_n(&launchable, __ATOMIC_RELAXED)) return result;
  if (enter(caller) && !result && !here.muted) note_launch(executable, when);
  leave();
  return result;
}

// --- What is stood in front of. Versions of CUDA differ in what follows the first two parameters.

#define INSTANTIATE(name)                                                                        \
  int name(void **made_, void *graph, void *a, void *b, size_t c) {                              \
    NEXT(name, (void **, void *, void *, void *, size_t))                                        \
    if (!next) return SYMBOL_NOT_FOUND;                                                          \
    int result = next(made_, graph, a, b, c);                                                    \
    return made(&executables, result ? NULL : *made_, graph, result);                            \
  }

#define LAUNCH(name)                                                                             \
  int name(void *executable, void *stream) {                                                     \
    NEXT_BY(next_kept, name, (void *, void *))                                                   \
    uint64_t when = ticks();                                                                     \
    return next ? launched(caller, executable, when, next(executable, stream)) : SYMBOL_NOT_FOUND; \
  }

#define GONE(name, table)                                                                        \
  int name(void *address) {                                                                      \
    NEXT(name, (void *))                                                                         \
    return next ? next(gone(&table, address)) : SYMBOL_NOT_FOUND;                                \
  }

INSTANTIATE(cudaGraphInstantiate)
INSTANTIATE(cudaGraphInstantiateWithFlags)
INSTANTIATE(cudaGraphInstantiateWithParams)
INSTANTIATE(cudaGraphInstantiateWithParams_ptsz)
LAUNCH(cudaGraphLaunch)
LAUNCH(cudaGraphLaunch_ptsz)
GONE(cudaGraphDestroy, graphs)
GONE(cudaGraphExecDestroy, executables)

int cudaGraphClone(void **clone, void *graph) {
  NEXT(cudaGraphClone, (void **, void *))
  if (!next) return SYMBOL_NOT_FOUND;
  int result = next(clone, graph);
  return made(&graphs, result ? NULL : *clone, graph, result);
}

// An executable takes over what another graph was captured with. One that refuses stays as it is.
int cudaGraphExecUpdate(void *executable, void *graph, void *a, void *b) {
  NEXT(cudaGraphExecUpdate, (void *, void *, void *, void *))
  if (!next) return SYMBOL_NOT_FOUND;
  int result = next(executable, graph, a, b);
  return made(&executables, result ? NULL : executable, graph, result);
}
