// Memory and windows. A program of the harness can have allocations denied, registrations refused and frees held back.

#include <stdlib.h>

#include "nccl.h"
#include "observer.h"

struct segment {
  struct segment *next;
  void *address;
  size_t size;
};
static struct segment *segments, *held;

// What the harness asked for, by `control.py`.
static int denials;
static bool is_refusing, is_holding;
static void *refused;

void symm_observer_deny_next(int count) { __atomic_store_n(&denials, count, __ATOMIC_RELEASE); }
void symm_observer_hold_frees(int is_held) { __atomic_store_n(&is_holding, is_held != 0, __ATOMIC_RELEASE); }

void symm_observer_refuse(void *address, int is_on) {
  lock();
  refused = address;
  is_refusing = is_on;
  unlock();
}

// --- Memory

static void push(struct segment **list, void *address, size_t size) {
  struct segment *made = malloc(sizeof *made);
  if (!made) return;
  lock();
  *made = (struct segment){*list, address, size};
  *list = made;
  unlock();
}

// Takes a segment off the list. Returns its size; 0: it is not there.
static size_t pull(struct segment **list, void *address) {
  lock();
  struct segment **place = list;
  while (*place && (*place)->address != address) place = &(*place)->next;
  struct segment *found = *place;
  if (found) *place = found->next;
  unlock();
  size_t size = found ? found->size : 0;
  free(found);
  return size;
}

bool is_in_segment(uint64_t address) {
  const struct segment *each = segments;
  while (each && address - (uint64_t)each->address >= each->size) each = each->next;
  return each;
}

static bool is_denied(void) {
  int left = here.muted ? 0 : __atomic_load_n(&denials, __ATOMIC_ACQUIRE);
  while (left > 0)
    if (__atomic_compare_exchange_n(&denials, &left, left - 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return true;
  return false;
}

static void tell_allocation(void *address, size_t size, int result, bool denied) {
  struct fact fact = {.kind = result ? ALLOCATION_FAILED : ALLOCATED, .parent = -1, .result = result, .count = size};
  if (!result) push(&segments, address, size);
  fact.address = result ? 0 : (uint64_t)address;
  fact.word = denied;
  tell(&fact, NULL);
}

// A denied allocation is one for which the GPU has no room: NCCL returns a CUDA error and leaves the address alone.
int ncclMemAlloc(void **address, size_t size) {
  bool is_ours = enter(CALLER), denied = is_ours && is_denied();
  int result = denied ? CUDA_ERROR : real.MemAlloc(address, size);
  if (is_ours) tell_allocation(result ? NULL : *address, size, result, denied);
  leave();
  return result;
}

static bool is_to_be_held(void *address, size_t size) {
  return !here.muted && __atomic_load_n(&is_holding, __ATOMIC_ACQUIRE) && is_under_window(address, size);
}

static bool begin_free(void *address) {
  size_t size = pull(&segments, address);
  struct fact fact = {.kind = FREED, .parent = -1, .address = (uint64_t)address, .count = size};
  bool keeps = is_to_be_held(address, size ? size : 1);
  if (keeps) push(&held, address, size);
  fact.word = keeps;
  tell(&fact, NULL);
  return keeps;
}

int ncclMemFree(void *address) {
  bool is_held = enter(CALLER) && address && begin_free(address);
  int result = is_held ? SUCCESS : real.MemFree(address);
  leave();
  return result;
}

// Frees what was held back. Returns NCCL's first error.
int symm_observer_release_held(void) {
  int result = SUCCESS;
  while (held) {
    void *address = held->address;
    pull(&held, address);
    int freed = real.MemFree(address);
    if (!result) result = freed;
  }
  return result;
}

// --- Registrations that give no window

// Sends take such memory for registered, as they take that of windows. Until when is not followed.
int ncclCommRegister(void *comm, void *address, size_t size, void **handle) {
  bool is_ours = enter(CALLER);
  struct fact fact = {.kind = LOCALLY_REGISTERED, .parent = -1, .address = (uint64_t)address, .count = size};
  if (is_ours) fact.communicator = known_number(comm);
  int result = real.CommRegister(comm, address, size, handle);
  if (is_ours && !result) tell(&fact, NULL);
  leave();
  return result;
}

// --- Windows

static bool is_refused(void *address) {
  lock();
  bool found = is_refusing && !here.muted && refused == address;
  unlock();
  return found;
}

static void begin_registration(struct visit *visit, void *comm, void *address, size_t size, int flags) {
  visit->name[0] = 0;
  visit->fact = (struct fact){.kind = REGISTER_ENTERED, .parent = -1, .flags = flags, .count = size};
  visit->fact.communicator = known_number(comm);
  visit->communicator = comm;
  visit->fact.address = (uint64_t)address;
  visit->fact.key = here.number;
  enter_fact(visit);
}

// The result of a registration is there.
void finish_registration(struct visit *visit, void **where, int result) {
  struct fact fact = visit->fact;
  fact.kind = result ? REGISTER_FAILED : REGISTERED;
  fact.result = result;
  fact.other = result ? 0 : (uint64_t)*where;
  fact.calls = 0;
  if (fact.other) know_window(visit->communicator, *where, (void *)fact.address, fact.count);
  leave_fact(visit);
  tell(&fact, NULL);
}

static void registered(struct visit *visit, void *comm, void **window, int result) {
  bool is_on_its_way = result == IN_PROGRESS || (!result && here.groups);
  if (!is_on_its_way || !wait_for(visit, window, comm)) finish_registration(visit, window, result);
}

int ncclCommWindowRegister(void *comm, void *address, size_t size, void **window, int flags) {
  struct visit visit = {.is_ours = enter(CALLER)};
  if (visit.is_ours) begin_registration(&visit, comm, address, size, flags);
  bool is_let = !(visit.is_ours && is_refused(address));
  int result = is_let ? real.CommWindowRegister(comm, address, size, window, flags) : INVALID_ARGUMENT;
  if (visit.is_ours) registered(&visit, comm, window, result);
  leave();
  return result;
}

int ncclCommWindowDeregister(void *comm, void *window) {
  bool is_ours = enter(CALLER);
  struct fact fact = {.kind = DEREGISTERED, .parent = -1, .other = (uint64_t)window};
  if (is_ours) fact.communicator = known_number(comm);
  if (is_ours) forget_window(comm, window);
  fact.result = real.CommWindowDeregister(comm, window);
  if (is_ours) tell(&fact, NULL);
  leave();
  return fact.result;
}

// In a forked child: memory of the parent, and orders to it.
void forget_control(void) {
  segments = held = NULL;
  denials = 0;
  is_refusing = is_holding = false;
  symm_observer_listen(NULL);
}
