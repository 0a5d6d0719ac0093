// The way on to libcudart, which this library never loads itself.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

#include "cudart.h"
#include "observer.h"

enum { MOST_CALLERS = 16 };

void *in_library(const char *path, const char *name) {
  void *library = dlopen(path, RTLD_NOLOAD | RTLD_LAZY);
  void *found = library ? dlsym(library, name) : NULL;
  if (library) dlclose(library);
  return found;
}

void *in_cudart(const char *name) {
  const char *const paths[] = {"libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    void *found = in_library(paths[i], name);
    if (found) return found;
  }
  return NULL;
}

// The function after `own` in the order of the loader: of all libraries, of the caller's, or of libcudart wherever it
// is loaded. NULL: the caller found the name here and has no libcudart.
void *next_after(void *own, const char *name, void *caller) {
  Dl_info info = {0};
  void *found = dlsym(RTLD_NEXT, name);
  if ((!found || found == own) && dladdr(caller, &info) && info.dli_fname) found = in_library(info.dli_fname, name);
  // The caller may need this library, too, under NCCL's name.
  return found && found != own ? found : in_cudart(name);
}

// A caller is a place in the code of a library, or of one that calls by address, as ctypes does.
static struct {
  void *own, *caller, *next;
} known[MOST_CALLERS];
static uint32_t callers;

void *next_kept(void *own, const char *name, void *caller) {
  uint32_t count = __atomic_load_n(&callers, __ATOMIC_ACQUIRE);
  for (uint32_t i = 0; i < count; i++)
    if (known[i].caller == caller && known[i].own == own) return known[i].next;
  void *found = next_after(own, name, caller);
  lock();
  if (found && callers == count && count < MOST_CALLERS) {
    known[count].own = own, known[count].caller = caller, known[count].next = found;
    __atomic_store_n(&callers, count + 1, __ATOMIC_RELEASE);
  }
  unlock();
  return found;
}
