// What the process has of NCCL: communicators by number and identity, and the windows of each.

#include <stdlib.h>

#include "observer.h"

enum { BUCKETS = 1024 };

struct window {
  struct window *next;
  void *window, *address;
  size_t size;
};

struct communicator {
  struct communicator *next;
  void *communicator;
  uint32_t number;
  uint64_t identity;
  uint32_t children[GROW + 1];  // how many were split from it, or shrunk, or grown
  struct window *windows;
};

static struct communicator *known[BUCKETS];
static uint32_t numbers;

// FNV-1a over the bytes, begun from a seed.
uint64_t digest(uint64_t seed, const void *bytes, size_t size) {
  uint64_t hash = 0xcbf29ce484222325u ^ seed;
  for (size_t i = 0; i < size; i++) hash = (hash ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3u;
  return hash;
}

static struct communicator **place_of(void *communicator) {
  struct communicator **place = &known[((uintptr_t)communicator >> 4) % BUCKETS];
  while (*place && (*place)->communicator != communicator) place = &(*place)->next;
  return place;
}

uint32_t next_number(void) { return __atomic_add_fetch(&numbers, 1, __ATOMIC_RELAXED); }

static void drop(struct communicator **place) {
  struct communicator *gone = *place;
  *place = gone->next;
  for (struct window *next; gone->windows; gone->windows = next) {
    next = gone->windows->next;
    free(gone->windows);
  }
  free(gone);
}

// A communicator lives from now on. An older one at this address went unseen.
void know(void *communicator, uint32_t number, uint64_t identity) {
  lock();
  struct communicator **place = place_of(communicator);
  if (*place) drop(place);
  place = place_of(communicator);
  *place = calloc(1, sizeof **place);
  if (*place) **place = (struct communicator){.communicator = communicator, .number = number, .identity = identity};
  unlock();
}

// 0: it is not known. The caller holds the mutex.
uint32_t number_locked(void *communicator) {
  struct communicator *found = *place_of(communicator);
  return found ? found->number : 0;
}

uint32_t number_of(void *communicator) {
  lock();
  uint32_t number = number_locked(communicator);
  unlock();
  return number;
}

uint64_t identity_of(void *communicator) {
  lock();
  struct communicator *found = *place_of(communicator);
  uint64_t identity = found ? found->identity : 0;
  unlock();
  return identity;
}

// The how-manieth child of this kind the next one is. Counted by kind: ranks that a shrink excludes do not call it.
uint32_t ordinal(void *communicator, enum how how) {
  lock();
  struct communicator *found = *place_of(communicator);
  uint32_t number = found ? found->children[how]++ : 0;
  unlock();
  return number;
}

// A communicator and its windows are gone. Returns its number.
uint32_t forget(void *communicator) {
  lock();
  struct communicator **place = place_of(communicator);
  uint32_t number = *place ? (*place)->number : 0;
  if (*place) drop(place);
  unlock();
  return number;
}

void know_window(void *communicator, void *window, void *address, size_t size) {
  lock();
  struct communicator *found = *place_of(communicator);
  struct window *made = found ? malloc(sizeof *made) : NULL;
  if (made) {
    *made = (struct window){found->windows, window, address, size};
    found->windows = made;
  }
  unlock();
}

void forget_window(void *communicator, void *window) {
  lock();
  struct communicator *found = *place_of(communicator);
  struct window **place = found ? &found->windows : NULL;
  while (place && *place && (*place)->window != window) place = &(*place)->next;
  if (place && *place) {
    struct window *gone = *place;
    *place = gone->next;
    free(gone);
  }
  unlock();
}

static bool has_window(const struct communicator *communicator, uintptr_t begins, size_t size) {
  for (const struct window *each = communicator->windows; each; each = each->next) {
    uintptr_t other = (uintptr_t)each->address;
    if (other < begins + size && begins < other + each->size) return true;
  }
  return false;
}

bool is_under_window(void *address, size_t size) {
  bool found = false;
  lock();
  for (int i = 0; i < BUCKETS && !found; i++)
    for (struct communicator *each = known[i]; each && !found; each = each->next)
      found = has_window(each, (uintptr_t)address, size);
  unlock();
  return found;
}

// The address of a live communicator by its number, for whoever knows communicators by address; NULL without one.
void *symm_observer_communicator(uint32_t number) {
  void *found = NULL;
  lock();
  for (int i = 0; i < BUCKETS && !found; i++)
    for (struct communicator *each = known[i]; each && !found; each = each->next)
      if (each->number == number) found = each->communicator;
  unlock();
  return found;
}

// In a forked child, after `forget_recording`: NCCL's objects are the parent's.
void forget_all(void) {
  for (int i = 0; i < BUCKETS; i++)
    while (known[i]) drop(&known[i]);
  numbers = 0;
}
