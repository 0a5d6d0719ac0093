// What NCCL tells a profiler plug-in of version 7 about a collective, and the last of these words, kept for the harness.
//
// The harness reads with `symm_calls_written` and `symm_calls_read`. The layout is that of NCCL 2.31 and 2.32.
// Nothing here blocks, allocates or fails: NCCL waits meanwhile.

#ifndef SYMM_CALLS_H
#define SYMM_CALLS_H

#include <stdint.h>
#include <string.h>

enum { COLLECTIVE = 1 << 1, COPY_ENGINE = 1 << 12, KEPT = 64, LONGEST = 32 };

// What NCCL hands over when it starts a collective. Of a copy-engine collective, only the part up to `datatype` is so.
struct started {
  uint64_t type;
  void *parent;
  int rank;
  uint64_t sequence;
  const char *function;
  const void *send;
  void *receive;
  uint64_t count;
  int root;
  const char *datatype;
  uint8_t channels;
  uint8_t warps;
  const char *algorithm;
  const char *protocol;
  void *parent_group;
  const char *kernel;
  uint8_t is_symmetric;
};

// What NCCL looks for under the name `ncclProfiler_v7`.
struct plugin {
  const char *name;
  int (*initialize)(void **, uint64_t, int *, const char *, int, int, int, void *);
  int (*start)(void *, void **, struct started *);
  int (*stop)(void *);
  int (*record_state)(void *, int, void *);
  int (*finalize)(void *);
};

// What the harness reads. `harness.substrate.nccl.calls.Call` has the same layout.
struct call {
  uint64_t send;
  uint64_t receive;
  int32_t channels;
  int32_t is_symmetric;
  int32_t is_by_copy_engine;
  char function[LONGEST];
  char algorithm[LONGEST];
  char protocol[LONGEST];
  char kernel[LONGEST];
};

static struct call calls[KEPT];
static uint64_t written;

static inline int is_call(const struct started *event) {
  return event->type == COLLECTIVE || event->type == COPY_ENGINE;
}

static inline void keep_text(char *into, const char *text) {
  strncpy(into, text ? text : "", LONGEST - 1);
  into[LONGEST - 1] = 0;
}

static inline void keep_call(const struct started *event) {
  struct call *call = &calls[written % KEPT];
  call->send = (uint64_t)event->send;
  call->receive = (uint64_t)event->receive;
  int has_kernel = event->type == COLLECTIVE;
  call->is_by_copy_engine = !has_kernel;
  call->channels = has_kernel ? event->channels : 0;
  call->is_symmetric = has_kernel ? event->is_symmetric : 0;
  keep_text(call->function, event->function);
  keep_text(call->algorithm, has_kernel ? event->algorithm : "");
  keep_text(call->protocol, has_kernel ? event->protocol : "");
  keep_text(call->kernel, has_kernel ? event->kernel : "");
  __atomic_store_n(&written, written + 1, __ATOMIC_RELEASE);
}

uint64_t symm_calls_written(void) { return __atomic_load_n(&written, __ATOMIC_ACQUIRE); }

// Copies call number `number`, counted from 0. Returns whether it is still there.
int symm_calls_read(uint64_t number, struct call *into) {
  uint64_t end = symm_calls_written();
  if (number >= end || end - number > KEPT) return 0;
  *into = calls[number % KEPT];
  return 1;
}

#endif
