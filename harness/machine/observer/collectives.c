// The collectives. Equal calls are one record with a count, so that a million of them fit.

#include "nccl.h"
#include "observer.h"

enum { SITES = 1 << 13, MOST_PROBES = 16 };

// Sites that were taken, by what is called and from where, whatever the buffers are.
static struct {
  uint64_t hash;
  uint32_t site;
} sites[SITES];

static uint64_t hash_of_kind(const struct fact *fact) {
  uint64_t key[] = {fact->communicator, fact->word,   fact->flags, fact->size,
                    fact->count,        fact->caller, fact->colour};
  return digest(0, key, sizeof key) | 1;
}

static int place_of_site(uint64_t hash) {
  for (int probe = 0; probe < MOST_PROBES; probe++) {
    int place = (hash + probe) % SITES;
    if (!sites[place].hash || sites[place].hash == hash) return place;
  }
  return -1;
}

void forget_sites(void) {
  for (int i = 0; i < SITES; i++) sites[i].hash = 0;
}

// Fills in the site of a call that has no record yet. The caller holds the mutex, and loses it for a while where a
// stack is taken.
static void find_site(struct fact *fact) {
  uint64_t hash = hash_of_kind(fact);
  int place = takes_every_stack() ? -1 : place_of_site(hash);
  if (place >= 0 && sites[place].hash) {
    fact->site = sites[place].site;
    return;
  }
  unlock();
  fact->site = site();
  lock();
  if (place < 0 || sites[place].hash) return;
  sites[place].hash = hash;
  sites[place].site = fact->site;
}

static void begin_call(struct visit *visit, void *communicator) {
  struct fact *fact = &visit->fact;
  uint64_t capture = captured_by(fact->handle);
  fact->colour = capture != 0;
  lock();
  if (!is_recording()) return unlock();
  fact->communicator = number_locked(communicator);
  if (!fact->communicator) {
    unlock();
    fact->communicator = known_number(communicator);
    lock();
  }
  visit->record = find(fact);
  if (visit->record == NONE) {
    find_site(fact);
    visit->record = find_or_add(fact);
  }
  if (visit->record != NONE) record(visit->record)->calls++;
  if (capture) enter_graph(capture, is_in_segment(fact->address) || is_in_segment(fact->other));
  visit->event = happened(visit->record);
  visit->slot = fly(visit->record);
  visit->expected = expect_call(visit);
  here.call = visit;
  unlock();
}

// A call that failed is another fact than an equal one that did not.
static void correct(struct visit *visit) {
  lock();
  if (visit->record != NONE) record(visit->record)->calls--;
  visit->fact.result = visit->result;
  visit->record = find_or_add(&visit->fact);
  if (visit->record != NONE) record(visit->record)->calls++;
  happened_instead(visit->event, visit->record);
  unlock();
}

static void end_call(struct visit *visit) {
  if (here.call != visit) return;
  here.call = NULL;
  land(visit->slot);
  bool is_over = visit->result != IN_PROGRESS && !here.groups;
  if (is_over) end_expecting(visit->expected);
  if (visit->result && visit->result != IN_PROGRESS) correct(visit);
}

#define VISIT(function, send, receive, op, root)                                                                \
  struct visit visit;                                                                                           \
  visit.record = NONE;                                                                                          \
  visit.slot = -1;                                                                                              \
  if (enter(CALLER) && !here.muted) {                                                                           \
    visit.fact = (struct fact){                                                                                 \
        CALL,   0, 0, -1, 0, 0, function, dtype, root, op, 0, 0, (uint64_t)(send), (uint64_t)(receive), count, \
        (uint64_t)stream, (uint64_t)CALLER, 0, 0, 0, 0};                                                        \
    begin_call(&visit, comm);                                                                                   \
  }

#define LEAVE(call)       \
  visit.result = call;    \
  end_call(&visit);       \
  leave();                \
  return visit.result;

#define WRAP(name, function, parameters, arguments, send, receive, op, root)           \
  int nccl##name parameters {                                                          \
    VISIT(function, send, receive, op, root)                                           \
    LEAVE(real.name arguments)                                                         \
  }                                                                                    \
  int nccl##name##Config(ONLY parameters, const void *config) {                        \
    VISIT(function, send, receive, op, root)                                           \
    LEAVE(real.name##Config(ONLY arguments, config))                                   \
  }

COLLECTIVES(WRAP)
