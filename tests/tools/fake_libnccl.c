// A library that answers as NCCL does, for machines without a GPU. It moves no data between ranks.
//
// Ranks of a communicator meet in a file of $FAKE_NCCL_FOLDER, so creation and registration wait for all of them as
// NCCL's do. Everything else is local. What the environment can ask for:
//   FAKE_NCCL_FAIL_ALLOC=N, FAKE_NCCL_FAIL_REGISTER=N   the Nth call of this process fails (R:N: on the rank R of $RANK)
//   FAKE_NCCL_NULL_WINDOWS=1                            registrations succeed and give no window
//   FAKE_NCCL_COPY_ENGINE=1                             collectives on windows run on copy engines
//   FAKE_NCCL_SLOW_PATH=1                               collectives on windows take the legacy path
//   FAKE_NCCL_HANG=NAME                                 the function of this name does not return
//   FAKE_NCCL_NONBLOCKING=1                             creations and registrations are in progress at first
//   FAKE_NCCL_TELL_IN_A_THREAD=1                        the profiler hears of calls in another thread
//   FAKE_NCCL_FAIL_GROUP=1                              the end of a group fails
//   FAKE_NCCL_FAIL_CALL=N                               the Nth collective of a thread fails

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../harness/machine/calls.h"

enum { SUCCESS = 0, CUDA_ERROR = 1, INVALID_ARGUMENT = 4, IN_PROGRESS = 7, MOST_RANKS = 64, SPLITS = 8 };
enum { VERSION = 23203, SEGMENT = 2 << 20, POLLS = 2, NO_COLOUR = -1 };

// Every function has two names. Some calls among them go by the public one, as in NCCL.
#define PUBLIC(name) extern __typeof__(pnccl##name) nccl##name __attribute__((weak, alias("pnccl" #name)));

struct id {
  char bytes[128];
};

struct config {
  size_t size;
  unsigned magic, version;
  int blocking;
};

// Where the ranks of one communicator meet.
struct place {
  atomic_int arrived;
  struct {
    int colour, key;
  } said[SPLITS][MOST_RANKS];
};

struct window {
  struct window *next;
  void *address;
  size_t size;
};

struct comm {
  struct place *place;
  char name[96];
  int size, rank, rounds, children, polls;
  struct window *windows;
  void *profile;
  struct task *task;  // what is in progress, where the communicator does not block
};

// What a group has begun and its end is to finish.
struct task {
  struct task *next;
  enum { CREATE, SPLIT, REGISTER, COLLECTIVE_CALL } kind;
  struct comm *comm;
  void **into;     // where the communicator or the window goes
  int goal, split;
  void *address;   // of a registration
  size_t size;
  struct started event;
};
static __thread int depth;
static __thread struct task *first;

static void hang_if_asked(const char *name) {
  const char *asked = getenv("FAKE_NCCL_HANG");
  while (asked && !strcmp(asked, name)) pause();
}

// Whether `variable` names this call, the `number`th of its kind in this process, counted from 1.
static bool is_to_fail(const char *variable, int number) {
  const char *asked = getenv(variable), *rank = getenv("RANK"), *at = asked ? strchr(asked, ':') : NULL;
  if (!asked || (at && (!rank || atoi(rank) != atoi(asked)))) return false;
  return atoi(at ? at + 1 : asked) == number;
}

static bool is_set(const char *variable) {
  const char *value = getenv(variable);
  return value && *value && strcmp(value, "0");
}

// --- Meeting

static void path_of(const char *name, char *path, size_t room) {
  const char *folder = getenv("FAKE_NCCL_FOLDER");
  snprintf(path, room, "%s/nccl-%s", folder ? folder : "/dev/shm", name);
}

static struct place *open_place(const char *name) {
  char path[4096];
  path_of(name, path, sizeof path);
  int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0 || ftruncate(file, sizeof(struct place))) return NULL;
  void *mapped = mmap(NULL, sizeof(struct place), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  return mapped == MAP_FAILED ? NULL : mapped;
}

// Returns what `await` needs.
static int arrive(struct comm *comm) {
  atomic_fetch_add(&comm->place->arrived, 1);
  return comm->size * ++comm->rounds;
}

static void await(struct comm *comm, int goal) {
  while (atomic_load(&comm->place->arrived) < goal) usleep(50);
}

// --- Telling the profiler

static const struct plugin *plugin(void) {
  static const struct plugin *found;
  const char *path = getenv("NCCL_PROFILER_PLUGIN");
  void *library = found || !path ? NULL : dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library) found = dlsym(library, "ncclProfiler_v7");
  return found;
}

static bool is_in_window(struct comm *comm, const void *address) {
  for (struct window *each = comm->windows; each; each = each->next)
    if (address >= each->address && (char *)address < (char *)each->address + each->size) return true;
  return false;
}

// As NCCL: the operand that peers address decides, and an all-reduce needs both.
static bool is_symmetric(struct comm *comm, const struct started *event) {
  bool sends = is_in_window(comm, event->send), receives = is_in_window(comm, event->receive);
  if (!strcmp(event->function, "AllGather")) return receives;
  if (!strcmp(event->function, "ReduceScatter")) return sends;
  return !strcmp(event->function, "AllReduce") && sends && receives;
}

static void tell(struct comm *comm, struct started *event) {
  void *handle;
  bool is_fast = is_symmetric(comm, event) && !is_set("FAKE_NCCL_SLOW_PATH");
  if (!plugin() || !plugin()->start || comm->size == 1) return;
  event->type = is_fast && is_set("FAKE_NCCL_COPY_ENGINE") ? COPY_ENGINE : COLLECTIVE;
  event->is_symmetric = is_fast;
  event->kernel = is_fast ? "AllGather_ST" : "-";
  plugin()->start(comm->profile, &handle, event);
}

// NCCL itself does so where a communicator does not block.
struct word {
  struct comm *comm;
  struct started *event;
};

static void *tell_in_thread(void *word) {
  tell(((struct word *)word)->comm, ((struct word *)word)->event);
  return NULL;
}

static void tell_somewhere(struct comm *comm, struct started *event) {
  struct word word = {comm, event};
  pthread_t thread;
  if (!is_set("FAKE_NCCL_TELL_IN_A_THREAD")) tell(comm, event);
  else if (!pthread_create(&thread, NULL, tell_in_thread, &word)) pthread_join(thread, NULL);
}

// --- Tasks

static void profile(struct comm *comm) {
  int mask = 0;
  if (plugin()) plugin()->initialize(&comm->profile, 0, &mask, comm->name, 1, comm->size, comm->rank, NULL);
}

// The first rank takes the meeting place away: all have it open.
static void finish_creation(struct task *task) {
  char path[4096];
  await(task->comm, task->goal);
  path_of(task->comm->name, path, sizeof path);
  if (task->comm->rank == 0) unlink(path);
  profile(task->comm);
}

static struct comm *create(const char *name, int size, int rank) {
  struct comm *comm = calloc(1, sizeof *comm);
  snprintf(comm->name, sizeof comm->name, "%s", name);
  comm->size = size;
  comm->rank = rank;
  comm->place = open_place(name);
  return comm;
}

// Ranks of one colour, by key and then by rank in the parent.
static void count_ranks(struct task *task, int *size, int *rank) {
  struct comm *parent = task->comm;
  int me = parent->rank, colour = parent->place->said[task->split % SPLITS][me].colour;
  int my_key = parent->place->said[task->split % SPLITS][me].key;
  *size = *rank = 0;
  for (int i = 0; i < parent->size; i++) {
    int key = parent->place->said[task->split % SPLITS][i].key;
    if (parent->place->said[task->split % SPLITS][i].colour != colour) continue;
    *size += 1;
    *rank += key < my_key || (key == my_key && i < me);
  }
}

static void make_child(struct task *task) {
  int size, rank;
  char name[96];
  await(task->comm, task->goal);
  int colour = task->comm->place->said[task->split % SPLITS][task->comm->rank].colour;
  *task->into = NULL;
  if (colour == NO_COLOUR) return;
  count_ranks(task, &size, &rank);
  snprintf(name, sizeof name, "%.60s.%d.%d", task->comm->name, task->split, colour);
  task->comm = *task->into = create(name, size, rank);
  task->goal = arrive(task->comm);
  task->kind = CREATE;
}

static void finish_registration(struct task *task) {
  await(task->comm, task->goal);
  *task->into = NULL;
  if (is_set("FAKE_NCCL_NULL_WINDOWS")) return;
  struct window *window = malloc(sizeof *window);
  *window = (struct window){task->comm->windows, task->address, task->size};
  *task->into = task->comm->windows = window;
}

static void run_first(struct task *task) {
  if (task->kind == SPLIT) make_child(task);
}

static void run_last(struct task *task) {
  if (task->kind == CREATE) finish_creation(task);
  if (task->kind == REGISTER) finish_registration(task);
  if (task->kind == COLLECTIVE_CALL) tell_somewhere(task->comm, &task->event);
}

static struct task *kept(struct task task) {
  struct task *made = malloc(sizeof *made);
  *made = task;
  return made;
}

static int later(struct task task) {
  struct task **end = &first;
  while (*end) end = &(*end)->next;
  *end = kept(task);
  return SUCCESS;
}

// On communicators that do not block: when the program has asked for the state some times.
static void start_task(struct task *task) {
  run_first(task);
  task->next = task->comm->task;
  task->comm->task = task;
  task->comm->polls = POLLS;
}

static bool is_later(const struct task *task) {
  return is_set("FAKE_NCCL_NONBLOCKING") && task->kind != COLLECTIVE_CALL;
}

static int run(struct task task) {
  if (depth) return later(task);
  if (is_later(&task)) {
    start_task(kept(task));
    return IN_PROGRESS;
  }
  run_first(&task);
  run_last(&task);
  return SUCCESS;
}

int pncclGroupStart(void) {
  depth++;
  return SUCCESS;
}
PUBLIC(GroupStart)

int pncclGroupEnd(void) {
  if (!depth) return 5;
  if (--depth) return SUCCESS;
  hang_if_asked("GroupEnd");
  struct task *tasks = first;
  first = NULL;
  bool is_in_progress = false;
  for (struct task *each = tasks; each; each = each->next)
    if (!is_later(each)) run_first(each);
  for (struct task *next; tasks; tasks = next) {
    next = tasks->next;
    if (is_later(tasks)) {
      is_in_progress = true;
      start_task(tasks);
      continue;
    }
    run_last(tasks);
    free(tasks);
  }
  if (is_in_progress) return IN_PROGRESS;
  return is_set("FAKE_NCCL_FAIL_GROUP") ? CUDA_ERROR : SUCCESS;
}
PUBLIC(GroupEnd)

int pncclGroupSimulateEnd(void *told) {
  depth--;
  first = NULL;
  return SUCCESS;
}
PUBLIC(GroupSimulateEnd)

// --- Communicators

int pncclGetVersion(int *version) {
  *version = VERSION;
  return SUCCESS;
}
PUBLIC(GetVersion)

int pncclGetUniqueId(struct id *id) {
  int file = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
  ssize_t size = read(file, id, sizeof *id);
  close(file);
  return size == sizeof *id ? SUCCESS : CUDA_ERROR;
}
PUBLIC(GetUniqueId)

static int begin(struct comm **comm, int size, struct id id, int rank) {
  char name[33];
  if (rank < 0 || rank >= size || size > MOST_RANKS) return INVALID_ARGUMENT;
  hang_if_asked("CommInitRank");
  for (int i = 0; i < 16; i++) sprintf(name + 2 * i, "%02x", (unsigned char)id.bytes[i]);
  *comm = create(name, size, rank);
  return run((struct task){.kind = CREATE, .comm = *comm, .goal = arrive(*comm)});
}

int pncclCommInitRankConfig(struct comm **comm, int size, struct id id, int rank, struct config *config) {
  return begin(comm, size, id, rank);
}
PUBLIC(CommInitRankConfig)

int pncclCommInitRank(struct comm **comm, int size, struct id id, int rank) {
  return begin(comm, size, id, rank);
}
PUBLIC(CommInitRank)

int pncclCommInitRankScalable(struct comm **comm, int size, int rank, int ids, struct id *id, struct config *config) {
  return begin(comm, size, *id, rank);
}
PUBLIC(CommInitRankScalable)

int pncclCommInitAll(struct comm **comms, int size, const int *devices) {
  struct id id;
  pncclGetUniqueId(&id);
  pncclGroupStart();
  for (int i = 0; i < size; i++) begin(&comms[i], size, id, i);
  return pncclGroupEnd();
}
PUBLIC(CommInitAll)

int pncclCommSplit(struct comm *comm, int colour, int key, struct comm **made, struct config *config) {
  int split = comm->children++;
  hang_if_asked("CommSplit");
  comm->place->said[split % SPLITS][comm->rank].colour = colour;
  comm->place->said[split % SPLITS][comm->rank].key = key;
  return run((struct task){.kind = SPLIT, .comm = comm, .into = (void **)made, .split = split, .goal = arrive(comm)});
}
PUBLIC(CommSplit)

// The ranks that stay; those left out do not call.
int pncclCommShrink(struct comm *comm, int *out, int count, struct comm **made, struct config *config, int flags) {
  char name[96];
  int before = 0;
  for (int i = 0; i < count; i++) before += out[i] < comm->rank;
  snprintf(name, sizeof name, "%.60s.shrunk%d", comm->name, comm->children++);
  *made = create(name, comm->size - count, comm->rank - before);
  return run((struct task){.kind = CREATE, .comm = *made, .goal = arrive(*made)});
}
PUBLIC(CommShrink)

// Old ranks keep their places.
int pncclCommGrow(struct comm *comm, int size, const struct id *id, int rank, struct comm **made, struct config *config) {
  char name[96];
  snprintf(name, sizeof name, "grown%s", getenv("FAKE_NCCL_GROWN") ? getenv("FAKE_NCCL_GROWN") : "");
  *made = create(name, size, comm ? comm->rank : rank);
  return run((struct task){.kind = CREATE, .comm = *made, .goal = arrive(*made)});
}
PUBLIC(CommGrow)

int pncclCommCount(struct comm *comm, int *size) {
  *size = comm->size;
  return SUCCESS;
}
PUBLIC(CommCount)

int pncclCommUserRank(struct comm *comm, int *rank) {
  *rank = comm->rank;
  return SUCCESS;
}
PUBLIC(CommUserRank)

int pncclCommGetAsyncError(struct comm *comm, int *state) {
  *state = comm->task && comm->polls-- > 0 ? IN_PROGRESS : SUCCESS;
  if (*state || !comm->task) return SUCCESS;
  for (struct task *next; comm->task; comm->task = next) {
    next = comm->task->next;
    run_last(comm->task);
    free(comm->task);
  }
  return SUCCESS;
}
PUBLIC(CommGetAsyncError)

int pncclCommFinalize(struct comm *comm) { return SUCCESS; }
PUBLIC(CommFinalize)
int pncclCommRevoke(struct comm *comm, int flags) { return SUCCESS; }
PUBLIC(CommRevoke)

// --- Memory and windows

int pncclMemAlloc(void **address, size_t size) {
  static atomic_int calls;
  if (is_to_fail("FAKE_NCCL_FAIL_ALLOC", ++calls)) return CUDA_ERROR;
  size_t room = (size + SEGMENT - 1) / SEGMENT * SEGMENT + SEGMENT;
  char *mapped = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return CUDA_ERROR;
  *address = (void *)(((uintptr_t)mapped + SEGMENT - 1) / SEGMENT * SEGMENT);
  return SUCCESS;
}
PUBLIC(MemAlloc)

// Its pages go; its addresses stay taken, so that a test never meets one of them again.
int pncclMemFree(void *address) { return madvise(address, 4096, MADV_DONTNEED) ? INVALID_ARGUMENT : SUCCESS; }
PUBLIC(MemFree)

int pncclCommRegister(struct comm *comm, void *address, size_t size, void **handle) {
  *handle = address;
  return SUCCESS;
}
PUBLIC(CommRegister)

// A rank's own error is found before it waits for the others, as in NCCL.
int pncclCommWindowRegister(struct comm *comm, void *address, size_t size, void **window, int flags) {
  static atomic_int calls;
  void *handle;
  ncclCommRegister(comm, address, size, &handle);
  if (is_to_fail("FAKE_NCCL_FAIL_REGISTER", ++calls)) return INVALID_ARGUMENT;
  hang_if_asked("CommWindowRegister");
  struct task task = {.kind = REGISTER, .comm = comm, .into = window, .address = address, .size = size};
  task.goal = arrive(comm);
  return run(task);
}
PUBLIC(CommWindowRegister)

int pncclCommWindowDeregister(struct comm *comm, struct window *window) {
  struct window **place = &comm->windows;
  while (*place && *place != window) place = &(*place)->next;
  if (*place) *place = window->next;
  return *place || window ? SUCCESS : INVALID_ARGUMENT;
}
PUBLIC(CommWindowDeregister)

// Takes the windows along. The memory of a communicator is used again at once, as an allocator may do.
int pncclCommDestroy(struct comm *comm) {
  hang_if_asked("CommDestroy");
  while (comm->windows) ncclCommWindowDeregister(comm, comm->windows);
  munmap(comm->place, sizeof *comm->place);
  free(comm);
  return SUCCESS;
}
PUBLIC(CommDestroy)

int pncclCommAbort(struct comm *comm) { return pncclCommDestroy(comm); }
PUBLIC(CommAbort)

// --- Collectives

static int call(const char *function, const void *send, void *receive, size_t count, int root, struct comm *comm) {
  static __thread int calls;
  calls++;
  if (is_to_fail("FAKE_NCCL_FAIL_CALL", calls)) return INVALID_ARGUMENT;
  hang_if_asked(function);
  if (!plugin()) return SUCCESS;
  struct task task = {.kind = COLLECTIVE_CALL, .comm = comm};
  task.event = (struct started){.function = function, .send = send, .receive = receive, .count = count, .root = root};
  return run(task);
}

#define CALLS(name, root, ...)                                                                   \
  int pnccl##name(const void *send, void *receive, size_t count, int dtype __VA_ARGS__,          \
                  struct comm *comm, void *stream) {                                             \
    return call(#name, send, receive, count, root, comm);                                        \
  }                                                                                              \
  PUBLIC(name)
#define COMMA ,

CALLS(AllGather, -1)
CALLS(AlltoAll, -1)
CALLS(AllReduce, -1, COMMA int op)
CALLS(ReduceScatter, -1, COMMA int op)
CALLS(Reduce, root, COMMA int op COMMA int root)
CALLS(Broadcast, root, COMMA int root)
CALLS(Gather, root, COMMA int root)
CALLS(Scatter, root, COMMA int root)

int pncclBcast(void *buffer, size_t count, int dtype, int root, struct comm *comm, void *stream) {
  return ncclBroadcast(buffer, buffer, count, dtype, root, comm, stream);
}
PUBLIC(Bcast)

int pncclSend(const void *send, size_t count, int dtype, int peer, struct comm *comm, void *stream) { return SUCCESS; }
PUBLIC(Send)

int pncclRecv(void *receive, size_t count, int dtype, int peer, struct comm *comm, void *stream) { return SUCCESS; }
PUBLIC(Recv)

int pncclAllGatherConfig(const void *send, void *receive, size_t count, int dtype, struct comm *comm, void *stream,
                         const void *config) {
  return call("AllGather", send, receive, count, -1, comm);
}
PUBLIC(AllGatherConfig)

// NCCL has threads of its own, which use some of its public functions.
static void *call_from_within(void *nothing) {
  void *address;
  int result = ncclMemAlloc(&address, 4096);
  return ncclMemFree(address) || result ? address : NULL;
}

int fakeCallsInAThread(void) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, call_from_within, NULL)) return CUDA_ERROR;
  return pthread_join(thread, NULL);
}

// The program has given up what was in progress.
int fakeForgetTask(struct comm *comm) {
  comm->task = NULL;
  return SUCCESS;
}
