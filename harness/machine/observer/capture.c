// Stream captures: where a program begins and ends one, and whether a call is captured, so that it does not run.
//
// The functions are libcudart's. PyTorch reaches them through its PLT, and there this library comes first. Each call
// goes on to the function that its caller would have got without this library.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

#include "observer.h"

enum { SYMBOL_NOT_FOUND = 302, NOT_CAPTURING = 401, UNMATCHED = 903, WRONG_THREAD = 908 };  // of cudaError_t
enum { LAST_LEGACY_STREAM = 1 };  // NULL and cudaStreamLegacy, of which CUDA captures no work

// Captures that this process has begun and not ended. Without one, a call asks CUDA nothing.
static int open_captures;

// --- Forwarding

static void *in_library(const char *path, const char *name) {
  void *library = dlopen(path, RTLD_NOLOAD | RTLD_LAZY);
  void *found = library ? dlsym(library, name) : NULL;
  if (library) dlclose(library);
  return found;
}

static void *in_cudart(const char *name) {
  const char *const paths[] = {"libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    void *found = in_library(paths[i], name);
    if (found) return found;
  }
  return NULL;
}

// The function after `own` in the order of the loader: of all libraries, of the caller's, or of libcudart wherever it
// is loaded. NULL: the caller found the name here and has no libcudart.
static void *next_after(void *own, const char *name, void *caller) {
  Dl_info info = {0};
  void *found = dlsym(RTLD_NEXT, name);
  if ((!found || found == own) && dladdr(caller, &info) && info.dli_fname) found = in_library(info.dli_fname, name);
  // The caller may need this library, too, under NCCL's name.
  return found && found != own ? found : in_cudart(name);
}

// --- Facts

static void tell_capture(enum kind kind, void *stream, int mode, int result) {
  struct fact fact = {.kind = kind, .result = result, .parent = -1, .word = mode, .address = (uint64_t)stream};
  fact.flags = here.number;
  tell(&fact, NULL);
}

static int began(void *caller, void *stream, int mode, int result) {
  bool is_ours = enter(caller);
  if (!result) __atomic_fetch_add(&open_captures, 1, __ATOMIC_RELAXED);
  if (is_ours && !result) tell_capture(CAPTURE_BEGAN, stream, mode, result);
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
static int ended(void *caller, void *stream, int result) {
  bool is_ours = enter(caller), goes_on = result == UNMATCHED || result == WRONG_THREAD;
  if (!goes_on && result != NOT_CAPTURING) close_one();
  if (is_ours && !goes_on) tell_capture(CAPTURE_ENDED, stream, 0, result);
  leave();
  return result;
}

void forget_captures(void) { open_captures = 0; }

// --- Calls

typedef int (*asked)(void *stream, int *status);

// The driver's function leaves no error behind. It is there wherever libcudart is the real one.
static asked find_asked(void) {
  static asked kept;
  asked found = __atomic_load_n(&kept, __ATOMIC_RELAXED);
  if (!found) found = (asked)in_library("libcuda.so.1", "cuStreamIsCapturing");
  if (!found) found = (asked)in_cudart("cudaStreamIsCapturing");
  __atomic_store_n(&kept, found, __ATOMIC_RELAXED);
  return found;
}

// Whether work on a stream is captured now. A stream may join a capture of another, as those of ProcessGroupNCCL do.
bool is_captured(uint64_t stream) {
  if (__builtin_expect(!__atomic_load_n(&open_captures, __ATOMIC_RELAXED), 1)) return false;
  asked is_capturing = stream > LAST_LEGACY_STREAM ? find_asked() : NULL;
  int status = 0;
  return is_capturing && !is_capturing((void *)stream, &status) && status;
}

// --- What is stood in front of, each with its twin for programs whose default stream is the thread's

#define NEXT(name, parameters)                                                          \
  void *caller = CALLER;                                                                \
  int(*next) parameters = (int(*) parameters)next_after((void *)name, #name, caller);

#define BEGIN(name, parameters, arguments)                                              \
  int name parameters {                                                                 \
    NEXT(name, parameters)                                                              \
    return began(caller, stream, mode, next ? next arguments : SYMBOL_NOT_FOUND);       \
  }

#define END(name)                                                                       \
  int name(void *stream, void **graph) {                                                \
    NEXT(name, (void *, void **))                                                       \
    return next ? ended(caller, stream, next(stream, graph)) : SYMBOL_NOT_FOUND;        \
  }

#define TO_GRAPH void *stream, void *graph, const void *nodes, const void *edges, size_t count, int mode

#define ALL(suffix)                                                                     \
  BEGIN(cudaStreamBeginCapture##suffix, (void *stream, int mode), (stream, mode))       \
  BEGIN(cudaStreamBeginCaptureToGraph##suffix, (TO_GRAPH), (stream, graph, nodes, edges, count, mode)) \
  END(cudaStreamEndCapture##suffix)

ALL()
ALL(_ptsz)
