// The Python of this process, by name: the library runs in programs that have none.

#pragma once
#include <stdbool.h>
#include <stddef.h>

#define PYTHON(X)                                            \
  X(int, Py_IsInitialized, (void))                           \
  X(void *, PyGILState_GetThisThreadState, (void))           \
  X(int, PyGILState_Check, (void))                           \
  X(int, PyGILState_Ensure, (void))                          \
  X(void, PyGILState_Release, (int))                         \
  X(void *, PyErr_Occurred, (void))                          \
  X(void, PyErr_Clear, (void))                               \
  X(void *, PyThreadState_GetFrame, (void *))                \
  X(void *, PyFrame_GetBack, (void *))                       \
  X(void *, PyFrame_GetCode, (void *))                       \
  X(int, PyFrame_GetLineNumber, (void *))                    \
  X(void *, PyObject_GetAttrString, (void *, const char *))  \
  X(void *, PyMapping_GetItemString, (void *, const char *)) \
  X(const char *, PyUnicode_AsUTF8, (void *))                \
  X(void *, PyImport_ImportModule, (const char *))           \
  X(void *, PyDict_New, (void))                              \
  X(void *, PyObject_CallMethod, (void *, const char *, const char *, ...)) \
  X(void, Py_DecRef, (void *))

#define DECLARE_PYTHON(result, name, parameters) extern result(*name) parameters;
PYTHON(DECLARE_PYTHON)

enum { LONGEST_ANSWER = 2048 };

// Writes what it reads of a thread's frames, and returns how many bytes. Called under Python's lock.
typedef size_t (*reader)(void *thread, char *into, size_t room);

// What `read` has to say of this thread, in at most LONGEST_ANSWER bytes. Nothing if Python is not there or has ended,
// or if its lock is not to be had within the patience of this file.
size_t ask_python(reader read, char *into, size_t room);

// Whether Python was there, and has ended.
bool has_python_ended(void);
