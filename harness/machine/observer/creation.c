// Communicators come and go.

#define _GNU_SOURCE
#include <stdio.h>
#include <unistd.h>

#include "nccl.h"
#include "observer.h"

static void name_it(struct visit *visit, const struct config *config) {
  visit->name[0] = 0;
  bool has_name = config && config->size >= offsetof(struct config, name) + sizeof config->name && config->name;
  if (has_name) snprintf(visit->name, sizeof visit->name, "%s", config->name);
  if (!visit->name[0] && !here.muted) write_torch_name(visit->name, sizeof visit->name);
}

static void begin_creation(struct visit *visit, struct fact fact, const struct config *config) {
  name_it(visit, config);
  fact.kind = COMM_CREATED;
  fact.result = NOT_RETURNED;
  fact.communicator = next_number();
  visit->fact = fact;
  begin(visit);
}

// NCCL knows size and rank of a communicator that is ready.
static void ask_place(struct fact *fact, void *communicator) {
  real.CommCount(communicator, &fact->size);
  real.CommUserRank(communicator, &fact->rank);
}

// The result of a creation is there. `where` holds no communicator if this rank is to be in none.
void finish_creation(struct visit *visit, void **where, int result) {
  bool is_made = !result && *where;
  visit->fact.result = result;
  if (is_made && number_of(*where) != visit->fact.communicator)
    know(*where, visit->fact.communicator, visit->fact.other);
  if (is_made) ask_place(&visit->fact, *where);
  if (!is_made) visit->fact.size = 0;
  end(visit);
  if (is_made && !here.muted) look_for_others();
}

// NCCL writes the address of a communicator at once, except of children that are made in a group.
static int created(struct visit *visit, void **where, void *parent, int result) {
  if (visit->is_ours) {
    bool is_on_its_way = result == IN_PROGRESS || (!result && here.groups);
    bool is_there = is_on_its_way && !(parent && here.groups) && *where;
    if (is_there) know(*where, visit->fact.communicator, visit->fact.other);
    if (!is_on_its_way || !wait_for(visit, where, is_there ? *where : parent)) finish_creation(visit, where, result);
  }
  leave();
  return result;
}

int ncclCommInitRank(void **comm, int size, struct id id, int rank) {
  struct visit visit = {.is_ours = enter(CALLER)};
  struct fact fact = {.parent = -1, .word = INIT, .rank = rank, .size = size, .other = digest(0, &id, sizeof id)};
  if (visit.is_ours) begin_creation(&visit, fact, NULL);
  return created(&visit, comm, NULL, real.CommInitRank(comm, size, id, rank));
}

int ncclCommInitRankConfig(void **comm, int size, struct id id, int rank, struct config *config) {
  struct visit visit = {.is_ours = enter(CALLER)};
  struct fact fact = {.parent = -1, .word = CONFIG, .rank = rank, .size = size, .other = digest(0, &id, sizeof id)};
  if (visit.is_ours) begin_creation(&visit, fact, config);
  return created(&visit, comm, NULL, real.CommInitRankConfig(comm, size, id, rank, config));
}

int ncclCommInitRankScalable(void **comm, int size, int rank, int ids, struct id *id, struct config *config) {
  struct visit visit = {.is_ours = enter(CALLER)};
  uint64_t identity = ids > 0 ? digest(0, id, ids * sizeof *id) : 0;
  struct fact fact = {.parent = -1, .word = SCALABLE, .rank = rank, .size = size, .other = identity};
  if (visit.is_ours) begin_creation(&visit, fact, config);
  return created(&visit, comm, NULL, real.CommInitRankScalable(comm, size, rank, ids, id, config));
}

// One call makes the communicators of all devices of this process.
static void created_all(void **comms, int size, uint64_t identity) {
  for (int i = 0; i < size; i++) {
    struct fact fact = {.kind = COMM_CREATED, .parent = -1, .word = ALL, .rank = i, .size = size, .other = identity};
    fact.communicator = next_number();
    know(comms[i], fact.communicator, identity);
    tell(&fact, NULL);
  }
  look_for_others();
}

int ncclCommInitAll(void **comms, int size, const int *devices) {
  static uint32_t times;
  uint32_t unique[] = {getpid(), __atomic_add_fetch(&times, 1, __ATOMIC_RELAXED), gethostid()};
  bool is_ours = enter(CALLER);
  int result = real.CommInitAll(comms, size, devices);
  if (is_ours && !result) created_all(comms, size, digest(0, unique, sizeof unique));
  leave();
  return result;
}

// The ranks of a child agree on its parent, on how many children of this kind came before, and on `what`.
static struct fact child(void *parent, enum how how, uint64_t what) {
  struct fact fact = {.word = how, .size = -1, .rank = -1, .parent = known_number(parent)};
  uint64_t key[] = {identity_of(parent), how, ordinal(parent, how), what};
  if (key[0]) fact.other = digest(0, key, sizeof key);  // an unknown parent may be any
  return fact;
}

int ncclCommSplit(void *comm, int colour, int key, void **made, struct config *config) {
  struct visit visit = {.is_ours = enter(CALLER)};
  if (visit.is_ours) {
    struct fact fact = child(comm, SPLIT, colour);
    fact.colour = colour;
    fact.key = key;
    begin_creation(&visit, fact, config);
  }
  return created(&visit, made, comm, real.CommSplit(comm, colour, key, made, config));
}

// Equal for equal sets of ranks, in whatever order a rank lists them.
static uint64_t set_of(const int *ranks, int count) {
  uint64_t sum = 0;
  for (int i = 0; i < count; i++) sum += digest(0, &ranks[i], sizeof ranks[i]);
  return sum;
}

int ncclCommShrink(void *comm, int *ranks, int count, void **made, struct config *config, int flags) {
  struct visit visit = {.is_ours = enter(CALLER)};
  if (visit.is_ours) begin_creation(&visit, child(comm, SHRINK, set_of(ranks, count)), config);
  return created(&visit, made, comm, real.CommShrink(comm, ranks, count, made, config, flags));
}

// New ranks know the unique id alone, old ones the parent. The old rank that has the id knows both.
static struct fact grown(void *comm, int size, int rank, uint64_t by_id) {
  if (!comm) return (struct fact){.parent = -1, .word = GROW, .size = size, .rank = rank, .other = by_id};
  struct fact fact = child(comm, GROW, 0);
  fact.handle = by_id;
  return fact;
}

int ncclCommGrow(void *comm, int size, const struct id *id, int rank, void **made, struct config *config) {
  struct visit visit = {.is_ours = enter(CALLER)};
  uint64_t by_id = id ? digest(0, id, sizeof *id) : 0;
  if (visit.is_ours) begin_creation(&visit, grown(comm, size, rank, by_id), config);
  return created(&visit, made, comm, real.CommGrow(comm, size, id, rank, made, config));
}

// The number of a communicator. One that was created unseen gets its number, and a fact that says so, at its first use.
uint32_t known_number(void *communicator) {
  uint32_t number = number_of(communicator);
  if (number || !communicator) return number;
  struct fact fact = {.kind = COMM_CREATED, .parent = -1, .word = UNKNOWN, .size = -1, .rank = -1};
  fact.communicator = next_number();
  know(communicator, fact.communicator, 0);
  ask_place(&fact, communicator);
  tell(&fact, NULL);
  return fact.communicator;
}

// --- The end

// Another thread may get its address for a new one before NCCL returns, so it is forgotten first.
static struct visit begin_going(void *caller, void *communicator, enum how how) {
  struct visit visit = {.is_ours = enter(caller), .fact = {.kind = COMM_GONE, .parent = -1, .word = how}};
  if (!visit.is_ours) return visit;
  bool stays = how == FINALIZE || how == REVOKE;
  visit.fact.communicator = known_number(communicator);
  if (!stays) end_pending(communicator, IN_PROGRESS);
  if (!stays) forget(communicator);
  begin(&visit);
  return visit;
}

static int gone(struct visit *visit, int result) {
  visit->fact.result = result;
  if (visit->is_ours) end(visit);
  leave();
  return result;
}

int ncclCommFinalize(void *comm) {
  struct visit visit = begin_going(CALLER, comm, FINALIZE);
  return gone(&visit, real.CommFinalize(comm));
}

int ncclCommDestroy(void *comm) {
  struct visit visit = begin_going(CALLER, comm, DESTROY);
  return gone(&visit, real.CommDestroy(comm));
}

int ncclCommAbort(void *comm) {
  struct visit visit = begin_going(CALLER, comm, ABORT);
  return gone(&visit, real.CommAbort(comm));
}

int ncclCommRevoke(void *comm, int flags) {
  struct visit visit = begin_going(CALLER, comm, REVOKE);
  return gone(&visit, real.CommRevoke(comm, flags));
}
