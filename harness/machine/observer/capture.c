// Stream captures: where a program begins and ends one, and which one a call goes into, so that it does not run.
//
// The functions are libcudart's. PyTorch reaches them through its PLT, and there this library comes first.

#include <stddef.h>

#include "cudart.h"
#include "observer.h"

enum { NOT_CAPTURING = 401, UNMATCHED = 903, WRONG_THREAD = 908 };  // of cudaError_t
enum { LAST_LEGACY_STREAM = 1 };  // NULL and cudaStreamLegacy, of which CUDA captures no work
enum { MOST_CAPTURES = 4096 };

// Captures that this process has begun and not ended. Without one, a call asks CUDA nothing.
static int open_captures;

// All that the process began, in order. `id` is CUDA's, 0 where CUDA gives none. The mutex guards what follows.
static struct capture {
  uint64_t id, began, ended;
  void *stream;
  uint32_t site, fact;  // `fact` is its graph's; NONE: it has captured no call
} captures[MOST_CAPTURES];
static uint32_t begun;    // more than there is room for, where some were not kept
static uint32_t current;  // the fact of the graph that the last captured call is in, and 1

// --- Facts

static uint32_t tell_capture(enum kind kind, void *stream, int mode, int result) {
  struct fact fact = {.kind = kind, .result = result, .parent = -1, .word = mode, .address = (uint64_t)stream};
  fact.flags = here.number;
  tell(&fact, NULL);
  return fact.site;
}

// --- Which capture is which

static uint32_t kept(void) { return begun < MOST_CAPTURES ? begun : MOST_CAPTURES; }

// The caller holds the mutex. Without an id it is the one that is open, if there is but one.
static struct capture *find_open(uint64_t id) {
  struct capture *found = NULL;
  bool has_id = id && id != NO_ID;
  for (uint32_t i = kept(); i-- > 0;) {
    if (captures[i].ended || (has_id && captures[i].id != id)) continue;
    if (has_id) return &captures[i];
    if (found) return NULL;
    found = &captures[i];
  }
  return found;
}

static void keep(void *stream, uint64_t id, uint32_t site) {
  lock();
  if (begun++ < MOST_CAPTURES) captures[begun - 1] = (struct capture){id, ticks(), 0, stream, site, NONE};
  unlock();
}

static uint32_t add_graph(struct capture *capture) {
  struct fact fact = {.kind = GRAPH, .parent = -1, .site = capture->site, .address = (uint64_t)capture->stream};
  fact.key = capture - captures + 1;
  fact.other = capture->began;
  return capture->fact = add(&fact);
}

// Where no capture is known, or no room was left for its graph, the graph has number 0.
static uint32_t graph_of(struct capture *capture) {
  const struct fact unknown = {.kind = GRAPH, .parent = -1};
  uint32_t of_unknown = find_or_add(&unknown);
  if (capture && capture->fact == NONE) add_graph(capture);
  return capture && capture->fact != NONE ? capture->fact : of_unknown;
}

// Puts the graph of a captured call into the sequence, if the captured call before was in another. The caller holds the
// mutex.
void enter_graph(uint64_t id, bool is_in_segment) {
  uint32_t fact = graph_of(find_open(id));
  if (fact != NONE && record(fact)->key && is_in_segment) record(fact)->word = 1;
  if (fact + 1 != current) happened(fact);
  current = fact + 1;
}

// Returns whether the graph has calls in memory that may have windows.
static bool end_one(uint64_t id, void *graph, int result) {
  lock();
  struct capture *capture = find_open(id);
  if (capture) capture->ended = ticks();
  uint32_t fact = capture ? capture->fact : NONE;
  if (fact != NONE) record(fact)->count = capture->ended;
  know_graph(graph, result ? NONE : fact);
  bool is_judged = fact != NONE && record(fact)->word;
  unlock();
  return is_judged;
}

// When captures began and ended, in pairs. Returns how many there are; more than `room`: not all are there.
size_t symm_observer_captures(uint64_t (*into)[2], size_t room) {
  lock();
  size_t found = begun;
  for (size_t i = 0; i < kept() && i < room; i++) {
    into[i][0] = captures[i].began;
    into[i][1] = captures[i].ended ? captures[i].ended : ticks();
  }
  unlock();
  return found;
}

// --- Begin and end

static int began(void *caller, void *stream, int mode, int result) {
  bool is_ours = enter(caller);
  if (!result) __atomic_fetch_add(&open_captures, 1, __ATOMIC_RELAXED);
  if (is_ours && !result && !here.muted) {
    uint32_t site = tell_capture(CAPTURE_BEGAN, stream, mode, result);
    keep(stream, captured_by((uint64_t)stream), site);
  }
  leave();
  return result;
}

static void close_one(void) {
  int left = __atomic_load_n(&open_captures, __ATOMIC_RELAXED);
  while (left > 0 &&
         !__atomic_compare_exchange_n(&open_captures, &left, left - 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

// A capture that CUDA found invalid has ended, too. One that another thread may not end, or another stream, goes on.
// Where the stream captured nothing, captures of other streams go on.
static int ended(void *caller, void *stream, uint64_t id, void *graph, int result) {
  bool is_ours = enter(caller), goes_on = result == UNMATCHED || result == WRONG_THREAD;
  bool has_ended = !goes_on && result != NOT_CAPTURING;
  if (has_ended) close_one();
  if (is_ours && !goes_on) tell_capture(CAPTURE_ENDED, stream, 0, result);
  if (has_ended && end_one(id, graph, result) && is_ours && !result) keep_history();
  leave();
  return result;
}

void forget_captures(void) {
  open_captures = 0;
  begun = current = 0;
}

// --- Calls

typedef int (*asked)(void *stream, int *status, unsigned long long *id, void *, void *, void *, void *);

// The driver's function leaves no error behind. It is there wherever libcudart is the real one. Its versions differ in
// what they may give besides, which is not asked for.
static asked find_asked(void) {
  static asked kept;
  asked found = __atomic_load_n(&kept, __ATOMIC_RELAXED);
  if (!found) found = (asked)in_library("libcuda.so.1", "cuStreamGetCaptureInfo_v2");
  if (!found) found = (asked)in_library("libcuda.so.1", "cuStreamGetCaptureInfo");
  if (!found) found = (asked)in_library("libcuda.so.1", "cuStreamIsCapturing");
  if (!found) found = (asked)in_cudart("cudaStreamGetCaptureInfo_v2");
  if (!found) found = (asked)in_cudart("cudaStreamIsCapturing");
  __atomic_store_n(&kept, found, __ATOMIC_RELAXED);
  return found;
}

// The capture that work on a stream goes into now, by CUDA's id. 0: none; NO_ID: CUDA gives no id. A stream may join a
// capture of another, as those of ProcessGroupNCCL do.
uint64_t captured_by(uint64_t stream) {
  if (__builtin_expect(!__atomic_load_n(&open_captures, __ATOMIC_RELAXED), 1)) return 0;
  asked ask = stream > LAST_LEGACY_STREAM ? find_asked() : NULL;
  int status = 0;
  unsigned long long id = 0;
  if (!ask || ask((void *)stream, &status, &id, NULL, NULL, NULL, NULL) || !status) return 0;
  return id ? id : NO_ID;
}

// --- What is stood in front of, each with its twin for programs whose default stream is the thread's

#define BEGIN(name, parameters, arguments)                                              \
  int name parameters {                                                                 \
    NEXT(name, parameters)                                                              \
    return began(caller, stream, mode, next ? next arguments : SYMBOL_NOT_FOUND);       \
  }

#define END(name)                                                                       \
  int name(void *stream, void **graph) {                                                \
    NEXT(name, (void *, void **))                                                       \
    if (!next) return SYMBOL_NOT_FOUND;                                                 \
    uint64_t id = captured_by((uint64_t)stream);                                        \
    int result = next(stream, graph);                                                   \
    return ended(caller, stream, id, graph ? *graph : NULL, result);                    \
  }

#define TO_GRAPH void *stream, void *graph, const void *nodes, const void *edges, size_t count, int mode

#define ALL(suffix)                                                                     \
  BEGIN(cudaStreamBeginCapture##suffix, (void *stream, int mode), (stream, mode))       \
  BEGIN(cudaStreamBeginCaptureToGraph##suffix, (TO_GRAPH), (stream, graph, nodes, edges, count, mode)) \
  END(cudaStreamEndCapture##suffix)

ALL()
ALL(_ptsz)
