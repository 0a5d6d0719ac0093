// What the parts of the observer share. `observer.c` has the functions that it stands in front of.
//
// A thread may hold the mutex (`lock`) only over memory of its own process: never over a call of NCCL, of Python or of
// a listener, since each of these may wait for another thread.

#ifndef SYMM_OBSERVER_H
#define SYMM_OBSERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum { SUCCESS = 0, CUDA_ERROR = 1, INVALID_ARGUMENT = 4, IN_PROGRESS = 7, NOT_RETURNED = -1 };
enum { MOST_THREADS = 64, NAME = 64 };
#define NONE UINT32_MAX

// `harness.machine.observer.records` reads these numbers.
enum kind {
  COMM_CREATED = 1,
  COMM_GONE,
  ALLOCATED,
  ALLOCATION_FAILED,
  FREED,
  REGISTER_ENTERED,
  REGISTERED,
  REGISTER_FAILED,
  DEREGISTERED,
  GROUP_STARTED,
  GROUP_ENDED,
  CALL,
  UNOBSERVED,
  CAPTURE_BEGAN,
  CAPTURE_ENDED,
  GRAPH,
  HISTORY,
  HELD,
  LOCALLY_REGISTERED,
};
enum how { INIT, CONFIG, SCALABLE, ALL, SPLIT, SHRINK, GROW, UNKNOWN, FINALIZE, DESTROY, ABORT, REVOKE };
enum function {
  ALL_GATHER,
  REDUCE_SCATTER,
  ALL_REDUCE,
  ALL_TO_ALL,
  BROADCAST,
  REDUCE,
  SEND,
  RECV,
  GATHER,
  SCATTER,
  FUNCTIONS,
};

// One fact, as it lies in the file. What a kind has no use for is 0; of a call, `op` and `root` may be -1.
//
// A graph is a capture that has calls. Its fact is in the sequence where captured calls are, before the first that
// follow in this graph, and not where it is launched. Times are in ticks.
struct fact {
  uint32_t kind;
  int32_t result;
  uint32_t communicator;
  int32_t parent;    // number of the communicator that it came from; -1: none
  uint32_t site;     // text: where the program was
  uint32_t name;     // text: of the communicator, a path, the first launch of a graph, or the state of a history
  int32_t word;      // how, function, mode of a capture; whether it was denied, held, or may have windows (a graph)
  int32_t flags;     // of a registration; dtype of a call; thread of a group or a capture
  int32_t rank;      // of this process in the communicator; root or peer of a call
  int32_t size;      // ranks of the communicator; op of a call
  int32_t colour;    // of a split; 1 for a call that is captured
  int32_t key;       // of a split; thread of a registration; number of a graph's capture in the process
  uint64_t address;  // of memory; send buffer of a call; stream of a capture
  uint64_t other;    // window; identity of a communicator; receive buffer of a call; when a graph or tensor began
  uint64_t count;    // bytes; elements of a call; site of a capture; when a graph's capture ended; ticks a second
  uint64_t handle;   // stream of a call; second identity of one that grew; calls past the observer; when a tensor went
  uint64_t caller;   // return address: a key of equal calls, and nothing to a reader; how exact times of a tensor are
  uint64_t calls;    // or launches of a graph
  uint64_t symmetric, legacy, copy;  // or the first launch of a graph, the last, and nothing
};

// One call of the program on its way through NCCL.
struct visit {
  struct fact fact;
  char name[NAME];
  void *communicator;  // of a registration
  uint64_t event;     // its place in the sequence
  uint64_t expected;  // its number among those that NCCL is to report
  uint32_t record;    // NONE where it has none
  int slot;           // its place among those in flight; -1: none
  int result;         // of a collective
  bool is_ours;       // made by the program, and not by NCCL itself
};

// What a thread is about.
struct thread {
  uint32_t number;
  int depth, muted, groups;
  struct visit *call;  // the collective under way
};
extern __thread struct thread here;

#define CALLER __builtin_return_address(0)

// real.c: the library behind. `enter` says whether the program made this call, and not NCCL itself; each has a `leave`.
extern const char *const real_path;
int real_version(void);
bool enter(void *caller);
void leave(void);

// creation.c, memory.c and groups.c: what is stood in front of. A result may come later (`pending`).
uint32_t known_number(void *communicator);
void finish_creation(struct visit *visit, void **where, int result);
void finish_registration(struct visit *visit, void **where, int result);
bool wait_for(const struct visit *visit, void **where, void *communicator);
void end_pending(void *communicator, int result);
void forget_pending(void);
void forget_control(void);
bool is_in_segment(uint64_t address);  // the caller holds the mutex

// recording.c: the file
void lock(void);
void unlock(void);
bool is_recording(void);  // this and what follows: the caller holds the mutex
uint32_t add(const struct fact *fact);
uint32_t find_or_add(const struct fact *fact);
uint32_t find(const struct fact *fact);
struct fact *record(uint32_t number);
uint32_t facts_there(void);
uint64_t happened(uint32_t number);
void happened_instead(uint64_t event, uint32_t number);
uint32_t text(const char *bytes, size_t size);
int fly(uint32_t number);
void land(int slot);
void unmatched(void);
void forget_recording(void);

// notice.c: facts on their way to the file and to a listener
void tell(struct fact *fact, const char *name);
void begin(struct visit *visit);
void end(struct visit *visit);
void enter_fact(struct visit *visit);
void leave_fact(struct visit *visit);
typedef void (*listener)(const struct fact *fact, const char *name);
void symm_observer_listen(listener callback);

// communicators.c: numbers, identities and windows, kept also of muted calls. Each takes the mutex itself.
uint32_t next_number(void);
void know(void *communicator, uint32_t number, uint64_t identity);
uint32_t number_of(void *communicator);
uint32_t number_locked(void *communicator);
uint64_t identity_of(void *communicator);
uint32_t ordinal(void *communicator, enum how how);
uint32_t forget(void *communicator);
void know_window(void *communicator, void *window, void *address, size_t size);
void forget_window(void *communicator, void *window);
bool is_under_window(void *address, size_t size);
void forget_all(void);
uint64_t digest(uint64_t seed, const void *bytes, size_t size);

// site.c: where the program is
uint32_t site(void);
void write_torch_name(char *into, size_t room);
bool takes_every_stack(void);
void forget_sites(void);

// python.c: Python's lock
void forget_python(void);

// others.c: libraries of NCCL that are not observed
void look_for_others(void);

// capture.c: captures of streams
#define NO_ID UINT64_MAX
uint64_t captured_by(uint64_t stream);
void enter_graph(uint64_t id, bool is_in_segment);
void forget_captures(void);

// graphs.c: what was captured, and its launches. A graph is known by its fact; NONE: it is not to be known any more.
void know_graph(void *graph, uint32_t fact);
void forget_graphs(void);

// history.c: PyTorch's own memory history
void keep_history(void);
void forget_history(void);

// The clock that PyTorch's memory history goes by (c10/util/ApproximateClock.h of torch 2.8 to 2.13).
static inline uint64_t ticks(void) {
#if defined(__x86_64__) || defined(__i386__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  uint64_t now;
  __asm__ __volatile__("mrs %0, cntvct_el0" : "=r"(now));
  return now;
#else
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * 1000000000u + now.tv_nsec;
#endif
}

// path.c: NCCL's word on the path of calls
uint64_t expect_call(const struct visit *visit);
void end_expecting(uint64_t number);
void end_expecting_group(void);
void forget_expected(void);

#endif
