// NCCL's own word on the path of calls, through its profiler plug-in of version 7.
//
// NCCL tells of a call in the thread that made it, while that call is under way; of the calls of a group when the
// group ends; of calls on a communicator that does not block, from a thread of its own. Those two are found by function
// and buffers.

#include "../calls.h"
#include "observer.h"

enum { MOST_EXPECTED = 4096 };

static const char *const names[FUNCTIONS] = {"AllGather", "ReduceScatter", "AllReduce", "AlltoAll", "Broadcast",
                                             "Reduce",    "Send",          "Recv",      "Gather",   "Scatter"};

struct expected {
  uint32_t record;
  int32_t function;
  uint64_t send, receive;
  bool is_told;
};

// A ring. `oldest` is the first that NCCL has not told of; what it overtakes is forgotten.
static struct expected ring[MOST_EXPECTED];
static uint64_t oldest, newest;

// NCCL is to tell of this call later. The caller holds the mutex.
void expect_call(const struct visit *visit) {
  const struct fact *fact = &visit->fact;
  if (fact->word == SEND || fact->word == RECV || visit->record == NONE) return;
  if (newest - oldest == MOST_EXPECTED) oldest++;
  ring[newest++ % MOST_EXPECTED] =
      (struct expected){visit->record, fact->word, fact->address, fact->other, false};
}

static bool is_meant(const struct expected *expected, const struct started *event) {
  return !expected->is_told && expected->send == (uint64_t)event->send &&
         expected->receive == (uint64_t)event->receive && !strcmp(names[expected->function], event->function);
}

static uint32_t take_expected(const struct started *event) {
  for (uint64_t i = oldest; i < newest; i++) {
    struct expected *each = &ring[i % MOST_EXPECTED];
    if (!is_meant(each, event)) continue;
    each->is_told = true;
    while (oldest < newest && ring[oldest % MOST_EXPECTED].is_told) oldest++;
    return each->record;
  }
  return NONE;
}

static uint32_t record_of(const struct started *event) {
  const struct visit *visit = here.call;
  if (visit && !strcmp(names[visit->fact.word], event->function)) return visit->record;
  return take_expected(event);
}

static void count(const struct started *event) {
  lock();
  uint32_t number = record_of(event);
  if (number == NONE) {
    unmatched();
  } else {
    struct fact *fact = record(number);
    *(event->type == COPY_ENGINE ? &fact->copy : event->is_symmetric ? &fact->symmetric : &fact->legacy) += 1;
  }
  unlock();
}

static int initialize(void **context, uint64_t communicator, int *mask, const char *name, int nodes, int ranks,
                      int rank, void *log) {
  *context = ring;
  *mask = COLLECTIVE | COPY_ENGINE;
  return 0;
}

static int start(void *context, void **handle, struct started *event) {
  *handle = ring;
  if (event->type == COLLECTIVE) keep_call(event);
  if (!here.muted && (event->type == COLLECTIVE || event->type == COPY_ENGINE)) count(event);
  return 0;
}

static int stop(void *handle) { return 0; }

static int record_state(void *handle, int state, void *arguments) { return 0; }

static int finalize(void *context) { return 0; }

const struct plugin ncclProfiler_v7 = {"symm", initialize, start, stop, record_state, finalize};

void forget_expected(void) { oldest = newest = 0; }
