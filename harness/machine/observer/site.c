// Where the program is: the Python stack of this thread, or the thread's name.
//
// Python is reached by name in the process itself, so the library runs in any program. Python's lock is never waited
// for while the mutex is held.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "observer.h"

enum { MOST_FRAMES = 12, LONGEST_SITE = 2048 };

#define PYTHON(X)                                                             \
  X(int, Py_IsInitialized, (void))                                            \
  X(void *, PyGILState_GetThisThreadState, (void))                            \
  X(int, PyGILState_Ensure, (void))                                           \
  X(void, PyGILState_Release, (int))                                          \
  X(void *, PyErr_Occurred, (void))                                           \
  X(void, PyErr_Clear, (void))                                                \
  X(void *, PyThreadState_GetFrame, (void *))                                 \
  X(void *, PyFrame_GetBack, (void *))                                        \
  X(void *, PyFrame_GetCode, (void *))                                        \
  X(int, PyFrame_GetLineNumber, (void *))                                     \
  X(void *, PyObject_GetAttrString, (void *, const char *))                   \
  X(void *, PyMapping_GetItemString, (void *, const char *))                  \
  X(const char *, PyUnicode_AsUTF8, (void *))                                 \
  X(void, Py_DecRef, (void *))

#define DECLARE(result, name, parameters) static result(*name) parameters;
PYTHON(DECLARE)
static int (*is_finalizing)(void);

#define FIND(result, name, parameters) \
  if (!(name = (result(*) parameters)dlsym(RTLD_DEFAULT, #name))) return false;

static bool find_python(void) {
  PYTHON(FIND)
  is_finalizing = (int (*)(void))dlsym(RTLD_DEFAULT, "Py_IsFinalizing");
  if (!is_finalizing) is_finalizing = (int (*)(void))dlsym(RTLD_DEFAULT, "_Py_IsFinalizing");
  return is_finalizing;
}

static bool was_running;

// Taking the lock of an interpreter that ends would end the thread.
static bool has_python(void) {
  static bool is_found;
  if (!is_found) is_found = find_python();
  if (!is_found || !Py_IsInitialized() || is_finalizing()) return false;
  was_running = true;
  return PyGILState_GetThisThreadState();
}

// Python's lock, and under it what the program itself calls: Python may run a destructor or a property of the program
// here, and what that calls of NCCL is no call of NCCL's own.
struct turn {
  int held, depth;
};

static struct turn take_python(void) {
  struct turn turn = {PyGILState_Ensure(), here.depth};
  here.depth = 0;
  return turn;
}

static void give_python_back(struct turn turn) {
  here.depth = turn.depth;
  PyGILState_Release(turn.held);
}

static size_t write_frame(char *into, size_t room, void *frame) {
  void *code = PyFrame_GetCode(frame);
  void *file = PyObject_GetAttrString(code, "co_filename"), *name = PyObject_GetAttrString(code, "co_qualname");
  if (!name) name = PyObject_GetAttrString(code, "co_name");  // before Python 3.11
  const char *path = file ? PyUnicode_AsUTF8(file) : NULL, *function = name ? PyUnicode_AsUTF8(name) : NULL;
  int size = snprintf(into, room, "%s:%d %s\n", path ? path : "?", PyFrame_GetLineNumber(frame), function ? function : "?");
  PyErr_Clear();
  if (file) Py_DecRef(file);
  if (name) Py_DecRef(name);
  Py_DecRef(code);
  return size < 0 || (size_t)size >= room ? 0 : (size_t)size;
}

// A frame that has no room ends the stack, so that every line is whole.
static size_t write_frames(char *into, size_t room) {
  size_t size = 0;
  void *frame = PyThreadState_GetFrame(PyGILState_GetThisThreadState());
  for (int i = 0; frame; i++) {
    size_t more = i < MOST_FRAMES ? write_frame(into + size, room - size, frame) : 0;
    void *outer = more ? PyFrame_GetBack(frame) : NULL;
    Py_DecRef(frame);
    size += more;
    frame = outer;
  }
  return size;
}

// An exception that is on its way, as in a destructor, is left alone.
static size_t python_stack(char *into, size_t room) {
  if (!has_python()) return 0;
  struct turn turn = take_python();
  size_t size = PyErr_Occurred() ? 0 : write_frames(into, room);
  give_python_back(turn);
  return size;
}

static bool is_name(const char *text) {
  return text && *text && strcmp(text, "undefined") && strcmp(text, "default_pg");
}

// Takes a reference to the text, which may be none.
static size_t write_name(char *into, size_t room, void *given) {
  const char *found = given ? PyUnicode_AsUTF8(given) : NULL;
  size_t size = is_name(found) ? (size_t)snprintf(into, room, "%s", found) : 0;
  PyErr_Clear();
  if (given) Py_DecRef(given);
  return size;
}

static bool is_of_torch(void *frame) {
  void *code = PyFrame_GetCode(frame), *file = PyObject_GetAttrString(code, "co_filename");
  const char *path = file ? PyUnicode_AsUTF8(file) : NULL;
  bool found = path && strstr(path, "/torch/");
  PyErr_Clear();
  if (file) Py_DecRef(file);
  Py_DecRef(code);
  return found;
}

// PyTorch makes a communicator with its group, whose description is a variable there, or at a group's first collective.
static size_t write_group(char *into, size_t room, void *frame) {
  void *variables = is_of_torch(frame) ? PyObject_GetAttrString(frame, "f_locals") : NULL;
  if (!variables) return 0;
  size_t size = write_name(into, room, PyMapping_GetItemString(variables, "group_desc"));
  void *group = size ? NULL : PyMapping_GetItemString(variables, "group");
  if (group) {
    size = write_name(into, room, PyObject_GetAttrString(group, "group_desc"));
    Py_DecRef(group);
  }
  PyErr_Clear();
  Py_DecRef(variables);
  return size;
}

// What PyTorch calls the group of the communicator that this thread makes, or nothing. Takes Python's lock.
void write_torch_name(char *into, size_t room) {
  if (!has_python()) return;
  struct turn turn = take_python();
  void *frame = PyErr_Occurred() ? NULL : PyThreadState_GetFrame(PyGILState_GetThisThreadState());
  for (size_t size = 0; frame;) {
    size = write_group(into, room, frame);
    void *outer = size ? NULL : PyFrame_GetBack(frame);
    Py_DecRef(frame);
    frame = outer;
  }
  PyErr_Clear();
  give_python_back(turn);
}

static size_t thread_name(char *into, size_t room) {
  char name[17] = "";
  prctl(PR_GET_NAME, name);
  return snprintf(into, room, "thread %s\n", name);
}

// An interpreter ends with its process, so what comes now is no step of the program.
static bool has_ended(void) { return was_running && (!Py_IsInitialized() || is_finalizing()); }

static size_t end_of_process(char *into, size_t room) { return snprintf(into, room, "the end of the process\n"); }

// The site of this thread now. Takes Python's lock, and then the mutex.
uint32_t site(void) {
  char bytes[LONGEST_SITE];
  size_t size = python_stack(bytes, sizeof bytes);
  if (!size) size = has_ended() ? end_of_process(bytes, sizeof bytes) : thread_name(bytes, sizeof bytes);
  lock();
  uint32_t number = is_recording() ? text(bytes, size - 1) : 0;
  unlock();
  return number;
}

// Whether every new fact is worth a stack of its own, and not the first of a kind alone.
bool takes_every_stack(void) {
  const char *stacks = getenv("SYMM_OBSERVER_STACKS");
  return stacks && !strcmp(stacks, "all");
}
