// A fact on its way: to the file, and to the listener in this process. Muted threads tell nothing.

#include <string.h>

#include "observer.h"

static listener heard;

// The listener is called in the thread that makes the fact. It may wait for Python's lock.
void symm_observer_listen(listener callback) { __atomic_store_n(&heard, callback, __ATOMIC_RELEASE); }

static bool is_group(const struct fact *fact) { return fact->kind == GROUP_STARTED || fact->kind == GROUP_ENDED; }
static bool is_capture(const struct fact *fact) { return fact->kind == CAPTURE_BEGAN || fact->kind == CAPTURE_ENDED; }
static bool is_history(const struct fact *fact) { return fact->kind == HISTORY || fact->kind == HELD; }

static void call_back(const struct fact *fact, const char *name) {
  listener callback = __atomic_load_n(&heard, __ATOMIC_ACQUIRE);
  if (callback && fact->kind != CALL && !is_group(fact) && !is_capture(fact) && !is_history(fact)) callback(fact, name ? name : "");
}

// Equal ones are one fact.
static bool is_counted(const struct fact *fact) {
  return is_group(fact) || is_capture(fact) || fact->kind == UNOBSERVED;
}

static bool has_site(const struct fact *fact) {
  return fact->kind == CAPTURE_BEGAN || !(is_counted(fact) || is_history(fact));
}

static bool has_file(void) {
  lock();
  bool found = is_recording();
  unlock();
  return found;
}

// Writes a fact and calls back.
void tell(struct fact *fact, const char *name) {
  if (here.muted) return;
  bool is_written = has_file();
  if (is_written && has_site(fact)) fact->site = site();
  if (is_capture(fact)) fact->count = fact->site;  // captures that begin at two places are two facts
  lock();
  if (is_written && name) fact->name = text(name, strlen(name));
  uint32_t number = is_counted(fact) ? find_or_add(fact) : add(fact);
  if (number != NONE) record(number)->calls++;
  happened(number);
  unlock();
  call_back(fact, name);
}

// Writes a fact that its call has entered: it is in flight, and in the sequence only at its `end`.
void begin(struct visit *visit) {
  visit->record = NONE;
  visit->slot = -1;
  if (here.muted || !has_file()) return;
  visit->fact.site = site();
  lock();
  visit->fact.name = text(visit->name, strlen(visit->name));
  visit->record = add(&visit->fact);
  visit->slot = fly(visit->record);
  unlock();
}

// The call of a fact has returned, and with it the fact is whole.
void end(struct visit *visit) {
  if (here.muted) return;
  lock();
  visit->fact.calls = 1;
  if (visit->record != NONE) *record(visit->record) = visit->fact;
  happened(visit->record);
  land(visit->slot);
  unlock();
  call_back(&visit->fact, visit->name);
}

// A fact that is whole when its call is entered: it is in the sequence at once, and in flight until `leave_fact`.
void enter_fact(struct visit *visit) {
  begin(visit);
  if (here.muted) return;
  lock();
  if (visit->record != NONE) record(visit->record)->calls = 1;
  happened(visit->record);
  unlock();
  call_back(&visit->fact, visit->name);
}

void leave_fact(struct visit *visit) { land(visit->slot); }
