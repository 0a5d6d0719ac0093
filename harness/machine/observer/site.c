// Where the program is: the Python stack of this thread, or the thread's name.
//
// Python's lock is never waited for while the mutex is held.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "observer.h"
#include "python.h"

enum { MOST_FRAMES = 12 };

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
static size_t write_frames(void *thread, char *into, size_t room) {
  size_t size = 0;
  void *frame = PyThreadState_GetFrame(thread);
  for (int i = 0; frame; i++) {
    size_t more = i < MOST_FRAMES ? write_frame(into + size, room - size, frame) : 0;
    void *outer = more ? PyFrame_GetBack(frame) : NULL;
    Py_DecRef(frame);
    size += more;
    frame = outer;
  }
  return size;
}

static bool is_name(const char *text) {
  return text && *text && strcmp(text, "undefined") && strcmp(text, "default_pg");
}

// Takes a reference to the text, which may be none.
static size_t write_name(char *into, size_t room, void *given) {
  const char *found = given ? PyUnicode_AsUTF8(given) : NULL;
  size_t size = is_name(found) ? strnlen(found, room - 1) : 0;
  if (size) memcpy(into, found, size);
  PyErr_Clear();
  if (given) Py_DecRef(given);
  return size;
}

static void *none(void) { return dlsym(RTLD_DEFAULT, "_Py_NoneStruct"); }

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
// There `group` is None for the group that has no name. Returns whether this frame says what the group is called.
static bool write_group(char *into, size_t room, size_t *size, void *frame) {
  void *variables = is_of_torch(frame) ? PyObject_GetAttrString(frame, "f_locals") : NULL;
  if (!variables) return false;
  void *described = PyMapping_GetItemString(variables, "group_desc"), *group = NULL, *given = NULL;
  PyErr_Clear();
  if (!described) group = PyMapping_GetItemString(variables, "group");
  PyErr_Clear();
  if (group) given = PyObject_GetAttrString(group, "group_desc");
  bool is_decided = described || given || (group && group == none());
  *size = write_name(into, room, described ? described : given);
  PyErr_Clear();
  if (group) Py_DecRef(group);
  Py_DecRef(variables);
  return is_decided;
}

static size_t write_innermost(void *thread, char *into, size_t room) {
  size_t size = 0;
  for (void *frame = PyThreadState_GetFrame(thread), *outer; frame; frame = outer) {
    outer = write_group(into, room, &size, frame) ? NULL : PyFrame_GetBack(frame);
    Py_DecRef(frame);
  }
  PyErr_Clear();
  return size;
}

// What PyTorch calls the group of the communicator that this thread makes, or nothing.
void write_torch_name(char *into, size_t room) {
  char name[LONGEST_ANSWER];
  size_t size = ask_python(write_innermost, name, sizeof name);
  if (size >= room) size = room - 1;
  memcpy(into, name, size);
  into[size] = 0;
}

static size_t thread_name(char *into, size_t room) {
  char name[17] = "";
  prctl(PR_GET_NAME, name);
  return snprintf(into, room, "thread %s\n", name);
}

static size_t end_of_process(char *into, size_t room) { return snprintf(into, room, "the end of the process\n"); }

// The site of this thread now. Asks Python, and then takes the mutex.
uint32_t site(void) {
  char bytes[LONGEST_ANSWER];
  size_t size = ask_python(write_frames, bytes, sizeof bytes);
  if (!size) size = has_python_ended() ? end_of_process(bytes, sizeof bytes) : thread_name(bytes, sizeof bytes);
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
