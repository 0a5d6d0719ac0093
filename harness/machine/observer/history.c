// PyTorch's own memory history: switched on once a graph is captured over memory that may have windows, and read at the
// end of Python. `history.py` does both, in the program's own Python.

#include <stdlib.h>
#include <string.h>

#include "history.h"  // made of history.py where this library is built
#include "observer.h"
#include "python.h"

static bool is_decided;

// Runs the code and gives what it answers: a state. Called under Python's lock.
static size_t begin_history(void *thread, char *into, size_t room) {
  void *builtins = PyImport_ImportModule("builtins"), *names = PyDict_New(), *done = NULL, *answer = NULL;
  if (builtins && names) done = PyObject_CallMethod(builtins, "exec", "sO", (const char *)code_of_history, names);
  if (done) answer = PyObject_CallMethod(builtins, "eval", "sO", "begin()", names);
  const char *state = answer ? PyUnicode_AsUTF8(answer) : NULL;
  size_t size = state ? strnlen(state, room) : 0;
  if (size) memcpy(into, state, size);
  PyErr_Clear();
  void *const made[] = {answer, done, names, builtins};
  for (size_t i = 0; i < sizeof made / sizeof *made; i++)
    if (made[i]) Py_DecRef(made[i]);
  return size;
}

static void tell_state(const char *state, uint64_t since, uint64_t rate) {
  struct fact fact = {.kind = HISTORY, .parent = -1, .other = since, .count = rate};
  tell(&fact, state);
}

static bool is_wanted(void) { return getenv("SYMM_OBSERVER_HISTORY"); }

// The program's own history may be a short one: then the next capture asks again.
void keep_history(void) {
  char state[LONGEST_ANSWER + 1] = "not-asked";
  if (__atomic_load_n(&is_decided, __ATOMIC_RELAXED)) return;
  if (is_wanted()) state[ask_python(begin_history, state, LONGEST_ANSWER)] = 0;
  if (!*state) return;
  __atomic_store_n(&is_decided, strcmp(state, "own") != 0, __ATOMIC_RELAXED);
  tell_state(state, ticks(), 0);
}

void forget_history(void) { is_decided = false; }

// --- What history.py asks and tells

uint64_t symm_observer_ticks(void) { return ticks(); }

void symm_observer_history(const char *state, uint64_t since, uint64_t rate) { tell_state(state, since, rate); }

// A tensor: its memory, when it came and went (0: it is there), and where it was made. Times are right within `margin`.
void symm_observer_held(uint64_t address, uint64_t size, uint64_t since, uint64_t until, uint64_t margin,
                        const char *frames) {
  struct fact fact = {.kind = HELD, .parent = -1, .address = address, .count = size};
  fact.other = since, fact.handle = until, fact.caller = margin;
  tell(&fact, frames);
}

// Reads facts of one kind as pairs of two of their words. Returns how many there are.
static size_t read_facts(enum kind kind, size_t first, size_t second, uint64_t (*into)[2], size_t room) {
  size_t found = 0;
  lock();
  for (uint32_t i = 0, count = is_recording() ? facts_there() : 0; i < count; i++) {
    const char *fact = (const char *)record(i);
    if (record(i)->kind != kind) continue;
    if (found < room) memcpy(&into[found][0], fact + first, 8), memcpy(&into[found][1], fact + second, 8);
    found++;
  }
  unlock();
  return found;
}

#define PAIRS(kind, first, second) \
  read_facts(kind, offsetof(struct fact, first), offsetof(struct fact, second), into, room)

// Every segment that there was: address and bytes.
size_t symm_observer_segments(uint64_t (*into)[2], size_t room) { return PAIRS(ALLOCATED, address, count); }

// First and last launch of every graph; 0: it was not launched.
size_t symm_observer_launches(uint64_t (*into)[2], size_t room) { return PAIRS(GRAPH, symmetric, legacy); }
