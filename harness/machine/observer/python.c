// Python's lock, and what is read under it.
//
// A thread without the lock may hold a mutex for which the thread with the lock waits: PyTorch's allocator calls NCCL so.
// It would wait for ever here. So another thread takes the lock, and is waited for no longer than PATIENCE.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "python.h"

#include "observer.h"

enum { PATIENCE = 100 * 1000 * 1000 };  // nanoseconds

#define DEFINE(result, name, parameters) result(*name) parameters;
PYTHON(DEFINE)
static int (*is_finalizing)(void), (*disable_collector)(void), (*enable_collector)(void);
static bool was_running;

#define FIND(result, name, parameters) \
  if (!(name = (result(*) parameters)dlsym(RTLD_DEFAULT, #name))) return false;

static bool find_python(void) {
  PYTHON(FIND)
  disable_collector = (int (*)(void))dlsym(RTLD_DEFAULT, "PyGC_Disable");  // from Python 3.10 on
  enable_collector = (int (*)(void))dlsym(RTLD_DEFAULT, "PyGC_Enable");
  is_finalizing = (int (*)(void))dlsym(RTLD_DEFAULT, "Py_IsFinalizing");
  if (!is_finalizing) is_finalizing = (int (*)(void))dlsym(RTLD_DEFAULT, "_Py_IsFinalizing");
  return is_finalizing;
}

// Taking the lock of an interpreter that ends would end the thread.
static bool has_python(void) {
  static bool is_found;
  if (!is_found) is_found = find_python();
  if (!is_found || !Py_IsInitialized() || is_finalizing()) return false;
  was_running = true;
  return PyGILState_GetThisThreadState();
}

bool has_python_ended(void) { return was_running && (!Py_IsInitialized() || is_finalizing()); }

// Python may run a property of the program here, or a destructor where the collector cannot be held. What these call of
// NCCL is no call of NCCL's own.
static size_t read_frames(reader read, void *thread, char *into, size_t room) {
  int depth = here.depth, was_collecting = disable_collector && disable_collector();
  here.depth = 0;
  size_t size = read(thread, into, room);
  if (was_collecting && enable_collector) enable_collector();
  here.depth = depth;
  return size;
}

// An exception that is on its way, as in a destructor, is left alone.
static size_t ask_here(reader read, char *into, size_t room) {
  int held = PyGILState_Ensure();
  size_t size = PyErr_Occurred() ? 0 : read_frames(read, PyGILState_GetThisThreadState(), into, room);
  PyGILState_Release(held);
  return size;
}

// --- The thread that waits

enum state { IDLE, ASKED, ANSWERED };

// The question under way. `turn` is its asker's, `table` guards the rest. A reader runs under `table`, so its thread is
// still there.
static struct {
  pthread_mutex_t turn, table;
  pthread_cond_t asked, answered;
  bool has_waiter;
  enum state state;
  reader read;
  void *thread;
  size_t size;
  char bytes[LONGEST_ANSWER];
} desk = {.turn = PTHREAD_MUTEX_INITIALIZER,
          .table = PTHREAD_MUTEX_INITIALIZER,
          .asked = PTHREAD_COND_INITIALIZER,
          .answered = PTHREAD_COND_INITIALIZER};

static void answer(void) {
  int held = PyGILState_Ensure();
  pthread_mutex_lock(&desk.table);
  if (desk.state == ASKED) {
    desk.size = read_frames(desk.read, desk.thread, desk.bytes, sizeof desk.bytes);
    desk.state = ANSWERED;
    pthread_cond_signal(&desk.answered);
  }
  pthread_mutex_unlock(&desk.table);
  PyGILState_Release(held);
}

static void *wait_for_questions(void *nothing) {
  for (;;) {
    pthread_mutex_lock(&desk.table);
    while (desk.state != ASKED) pthread_cond_wait(&desk.asked, &desk.table);
    pthread_mutex_unlock(&desk.table);
    answer();
  }
  return nothing;
}

// Signals are for the threads of the program.
static bool has_waiter(void) {
  sigset_t all, before;
  pthread_t made;
  if (desk.has_waiter) return true;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  desk.has_waiter = !pthread_create(&made, NULL, wait_for_questions, NULL);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (desk.has_waiter) pthread_detach(made);
  return desk.has_waiter;
}

static struct timespec end_of_patience(void) {
  struct timespec end;
  clock_gettime(CLOCK_REALTIME, &end);
  long nanoseconds = end.tv_nsec + PATIENCE;
  return (struct timespec){end.tv_sec + nanoseconds / 1000000000, nanoseconds % 1000000000};
}

static size_t wait_for_answer(char *into, size_t room, const struct timespec *end) {
  size_t size = 0;
  while (desk.state == ASKED && !pthread_cond_timedwait(&desk.answered, &desk.table, end));
  if (desk.state == ANSWERED && desk.size <= room) memcpy(into, desk.bytes, size = desk.size);
  desk.state = IDLE;
  return size;
}

static size_t ask_the_waiter(reader read, char *into, size_t room) {
  struct timespec end = end_of_patience();
  if (pthread_mutex_timedlock(&desk.turn, &end)) return 0;
  size_t size = 0;
  pthread_mutex_lock(&desk.table);
  if (has_waiter()) {
    desk.read = read;
    desk.thread = PyGILState_GetThisThreadState();
    desk.state = ASKED;
    pthread_cond_signal(&desk.asked);
    size = wait_for_answer(into, room, &end);
  }
  pthread_mutex_unlock(&desk.table);
  pthread_mutex_unlock(&desk.turn);
  return size;
}

size_t ask_python(reader read, char *into, size_t room) {
  if (!has_python()) return 0;
  return PyGILState_Check() ? ask_here(read, into, room) : ask_the_waiter(read, into, room);
}

// In a forked child: the thread that waits is the parent's.
void forget_python(void) {
  desk.has_waiter = false;
  desk.state = IDLE;
  desk.turn = desk.table = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
  desk.asked = desk.answered = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
}
