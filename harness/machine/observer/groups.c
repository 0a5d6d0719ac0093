// Groups, and what is pending in them.
//
// In a group, and on communicators that do not block, NCCL writes its results later: when the group ends, or when the
// program learns that the communicator is ready. Until then what was entered is pending, and counts as in flight.

#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "nccl.h"
#include "observer.h"

enum { MOST_PENDING = 256 };

// A creation or a registration without a result yet.
struct pending {
  struct visit visit;
  void **where;        // NCCL writes the communicator or the window there; NULL: this place is free
  void *communicator;  // its state tells that the result is there
  uint32_t thread;     // the one that has it in a group; 0: none any more
};
static struct pending pending[MOST_PENDING];
static int most_pending;

// Returns false where there is no place: the caller has to do with what is there now.
bool wait_for(const struct visit *visit, void **where, void *communicator) {
  lock();
  int i = 0;
  while (i < MOST_PENDING && pending[i].where) i++;
  bool has_place = i < MOST_PENDING;
  if (has_place) pending[i] = (struct pending){*visit, where, communicator, here.groups ? here.number : 0};
  if (has_place && i >= most_pending) __atomic_store_n(&most_pending, i + 1, __ATOMIC_RELEASE);
  unlock();
  return has_place;
}

void forget_pending(void) {
  memset(pending, 0, sizeof pending);
  most_pending = 0;
}

static void finish(int place, void **where, int result) {
  lock();
  struct visit visit = pending[place].visit;
  pending[place].where = NULL;
  unlock();
  if (visit.fact.kind == COMM_CREATED) finish_creation(&visit, where, result);
  else finish_registration(&visit, where, result);
}

// Communicators that do not block go on after the end of the group. NCCL's place for a result is sure to be there now.
static void end_group(int result) {
  int most = __atomic_load_n(&most_pending, __ATOMIC_ACQUIRE);
  for (int i = 0; i < most; i++) {
    if (!pending[i].where || pending[i].thread != here.number) continue;
    if (result == IN_PROGRESS) pending[i].thread = 0;
    else finish(i, pending[i].where, result);
  }
}

static struct fact group(enum kind kind, int result) {
  return (struct fact){.kind = kind, .parent = -1, .flags = here.number, .result = result};
}

int ncclGroupStart(void) {
  bool is_ours = enter(CALLER);
  int result = real.GroupStart();
  if (is_ours && !result) {
    struct fact fact = group(GROUP_STARTED, 0);
    here.groups++;
    tell(&fact, NULL);
  }
  leave();
  return result;
}

// A group that does not end is in flight as its start.
static int fly_group(void) {
  struct fact fact = group(GROUP_STARTED, 0);
  if (here.muted) return -1;
  lock();
  int slot = fly(find_or_add(&fact));
  unlock();
  return slot;
}

static void ended(int slot, int result) {
  struct fact fact = group(GROUP_ENDED, result);
  land(slot);
  if (here.groups) here.groups--;
  if (!here.groups) end_group(result);
  if (!here.groups && result != IN_PROGRESS) end_expecting_group();
  tell(&fact, NULL);
}

int ncclGroupEnd(void) {
  bool is_ours = enter(CALLER);
  int slot = is_ours ? fly_group() : -1;
  int result = real.GroupEnd();
  if (is_ours) ended(slot, result);
  leave();
  return result;
}

// Ends the group without running it.
int ncclGroupSimulateEnd(void *told) {
  bool is_ours = enter(CALLER);
  int result = real.GroupSimulateEnd(told);
  if (is_ours) ended(-1, result ? result : INVALID_ARGUMENT);
  leave();
  return result;
}

// Reads what NCCL wrote. The program's variable may be gone, and its memory with it: then there is nothing to read.
static bool read_late(void **where, void **value) {
  int file = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
  ssize_t size = file < 0 ? -1 : pread(file, value, sizeof *value, (off_t)where);
  if (file >= 0) close(file);
  return size == sizeof *value;
}

static void finish_late(int place, int result) {
  void *value = NULL;
  if (!result && !read_late(pending[place].where, &value)) result = IN_PROGRESS;
  finish(place, &value, result);
}

// What was in progress on a communicator has its result; IN_PROGRESS: it never will.
void end_pending(void *communicator, int result) {
  int most = __atomic_load_n(&most_pending, __ATOMIC_ACQUIRE);
  for (int i = 0; i < most; i++)
    if (pending[i].where && !pending[i].thread && pending[i].communicator == communicator) finish_late(i, result);
}

// Programs learn here that a communicator is ready, while the place for the result is still there.
int ncclCommGetAsyncError(void *comm, int *state) {
  bool is_ours = enter(CALLER);
  int result = real.CommGetAsyncError(comm, state);
  if (is_ours && !result && *state != IN_PROGRESS) end_pending(comm, *state);
  leave();
  return result;
}
