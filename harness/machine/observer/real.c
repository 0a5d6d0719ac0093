// The real library: where it is, its functions, and which calls come from inside it.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nccl.h"
#include "observer.h"

#ifndef SYMM_REAL
#error "SYMM_REAL is the path of the real library"
#endif

const char *const real_path = SYMM_REAL;
struct real real;
__thread struct thread here;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool is_ready;
static uintptr_t begins, ends;  // of the code of the real library

static int note_range(struct dl_phdr_info *info, size_t size, void *base) {
  if (info->dlpi_addr != (uintptr_t)base) return 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *part = &info->dlpi_phdr[i];
    if (part->p_type != PT_LOAD || !(part->p_flags & PF_X)) continue;
    uintptr_t from = info->dlpi_addr + part->p_vaddr, to = from + part->p_memsz;
    if (!ends || from < begins) begins = from;
    if (to > ends) ends = to;
  }
  return 1;
}

static void *open_real(void) {
  void *library = dlopen(real_path, RTLD_LAZY);
  if (library) return library;
  fprintf(stderr, "symm: NCCL cannot be loaded: %s\n", dlerror());
  abort();
}

#define FIND(name) real.name = (__typeof__(real.name))dlsym(library, "pnccl" #name);
#define FIND_BOTH(name, ...) FIND(name) FIND(name##Config)

// The thread that forks goes on inside whatever it was in.
static void forget_parent(void) {
  forget_recording();
  forget_all();
  forget_expected();
  forget_control();
  forget_pending();
  forget_captures();
  forget_graphs();
  forget_history();
  forget_sites();
  forget_python();
  here.call = NULL;
  here.groups = 0;
}

static void find_functions(void) {
  void *library = open_real();
  struct link_map *map;
  ASKED(FIND) WRAPPED(FIND) COLLECTIVES(FIND_BOTH)
  if (!dlinfo(library, RTLD_DI_LINKMAP, &map)) dl_iterate_phdr(note_range, (void *)map->l_addr);
  pthread_atfork(NULL, NULL, forget_parent);
  __atomic_store_n(&is_ready, true, __ATOMIC_RELEASE);
}

__attribute__((constructor)) static void begin_observing(void) { pthread_once(&once, find_functions); }
__attribute__((destructor)) static void end_observing(void) { look_for_others(); }

int real_version(void) {
  int version = 0;
  return real.GetVersion(&version) ? 0 : version;
}

static void number_thread(void) {
  static uint32_t numbers;
  here.number = __atomic_add_fetch(&numbers, 1, __ATOMIC_RELAXED);
}

// NCCL calls functions of its own by their public names, also in threads of its own. Only what comes from outside, and
// is not inside another call of this thread, is the program's.
bool enter(void *caller) {
  if (__builtin_expect(!__atomic_load_n(&is_ready, __ATOMIC_ACQUIRE), 0)) pthread_once(&once, find_functions);
  if (__builtin_expect(!here.number, 0)) number_thread();
  return here.depth++ == 0 && ((uintptr_t)caller < begins || (uintptr_t)caller >= ends);
}

void leave(void) { here.depth--; }

// What this thread calls between `mute(1)` and `mute(-1)` is forwarded, and leaves no fact.
void symm_observer_mute(int change) { here.muted += change; }

// For whoever asks whether the library that a process got under NCCL's name is this one.
int symm_observer_layout(void) { return 1; }
const char *symm_observer_real(void) { return real_path; }
