// NCCL's own word on the path of calls, through its profiler plug-in of version 7.
//
// NCCL reports a call in the thread that made it, while that call is under way. It reports the calls of a group when
// the group ends, and calls on a communicator that does not block from a thread of its own. These two are found by
// function and buffers.

#include "../calls.h"
#include "observer.h"

enum { MOST_EXPECTED = 4096 };

static const char *const names[FUNCTIONS] = {"AllGather", "ReduceScatter", "AllReduce", "AlltoAll", "Broadcast",
                                             "Reduce",    "Send",          "Recv",      "Gather",   "Scatter"};

// A call that NCCL may report.
struct expected {
  uint64_t number;  // of the call, as `expect_call` gave it; 0: none, or NCCL is done with it
  uint32_t record, thread;
  int32_t function;
  uint64_t send, receive;
};

// A ring of the last calls that were begun. `oldest` is the first that NCCL may still report.
static struct expected ring[MOST_EXPECTED];
static uint64_t oldest = 1, newest = 1;

static struct expected *expected_at(uint64_t number) { return &ring[number % MOST_EXPECTED]; }

// NCCL may report this call from now on. Returns its number. The caller holds the mutex.
uint64_t expect_call(const struct visit *visit) {
  const struct fact *fact = &visit->fact;
  while (oldest < newest && expected_at(oldest)->number != oldest) oldest++;
  if (newest - oldest == MOST_EXPECTED) oldest++;
  *expected_at(newest) =
      (struct expected){newest, visit->record, here.number, fact->word, fact->address, fact->other};
  return newest++;
}

// NCCL has reported this call, or never will. Needs no mutex.
void end_expecting(uint64_t number) {
  __atomic_compare_exchange_n(&expected_at(number)->number, &number, 0, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

// The group of this thread has ended, and NCCL has reported all of its calls.
void end_expecting_group(void) {
  lock();
  for (uint64_t i = oldest; i < newest; i++)
    if (expected_at(i)->thread == here.number) expected_at(i)->number = 0;
  oldest = newest;
  unlock();
}

static bool is_meant(const struct expected *expected, const struct started *event) {
  return expected->send == (uint64_t)event->send && expected->receive == (uint64_t)event->receive &&
         !strcmp(names[expected->function], event->function);
}

// Returns whether the call is one of ours.
static bool take_expected(const struct started *event, uint32_t *record) {
  for (uint64_t i = oldest; i < newest; i++) {
    struct expected *each = expected_at(i);
    if (each->number != i || !is_meant(each, event)) continue;
    each->number = 0;
    *record = each->record;
    return true;
  }
  return false;
}

// A call that is under way in this thread, outside of a group, is the one that NCCL reports there.
static bool find_call(const struct started *event, uint32_t *record) {
  const struct visit *visit = here.groups ? NULL : here.call;
  if (!visit || strcmp(names[visit->fact.word], event->function)) return take_expected(event, record);
  *record = visit->record;
  return true;
}

static void count_path(struct fact *fact, const struct started *event) {
  if (event->type == COPY_ENGINE) fact->copy++;
  else if (event->is_symmetric) fact->symmetric++;
  else fact->legacy++;
}

static void count(const struct started *event) {
  uint32_t number = NONE;
  lock();
  if (!find_call(event, &number)) unmatched();
  else if (number != NONE) count_path(record(number), event);
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
  if (!is_call(event)) return 0;
  keep_call(event);
  if (!here.muted) count(event);
  return 0;
}

static int stop(void *handle) { return 0; }

static int record_state(void *handle, int state, void *arguments) { return 0; }

static int finalize(void *context) { return 0; }

const struct plugin ncclProfiler_v7 = {"symm", initialize, start, stop, record_state, finalize};

void forget_expected(void) { oldest = newest; }
