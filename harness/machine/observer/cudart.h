// libcudart behind this library: each function goes on to the one that its caller would have got without us.

#pragma once
#include <stdint.h>

enum { SYMBOL_NOT_FOUND = 302 };  // of cudaError_t

// A function of a library that is loaded under this path or name, or NULL.
void *in_library(const char *path, const char *name);
// A function of a libcudart, whoever has loaded it, or NULL.
void *in_cudart(const char *name);
// Where a call of `own`, which bears this name, goes on to. NULL: the caller found the name here and has no libcudart.
void *next_after(void *own, const char *name, void *caller);
// The same, kept for calls that are made often.
void *next_kept(void *own, const char *name, void *caller);

#define NEXT_BY(find, name, parameters) \
  void *caller = CALLER;                \
  int(*next) parameters = (int(*) parameters)find((void *)name, #name, caller);
#define NEXT(name, parameters) NEXT_BY(next_after, name, parameters)
