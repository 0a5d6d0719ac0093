// Other libraries of NCCL in this process. Programs that open one by its path reach it past the observer.

#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "observer.h"

// Plug-ins of NCCL, as libnccl-net.so, are no NCCL.
static bool is_nccl(const char *path) {
  const char *name = strrchr(path, '/');
  return name && !strncmp(name, "/libnccl.so", 11);
}

static bool is_real(unsigned major, unsigned minor, unsigned long inode) {
  struct stat real;
  return !stat(real_path, &real) && real.st_dev == makedev(major, minor) && real.st_ino == inode;
}

static void report(const char *path) {
  struct fact fact = {.kind = UNOBSERVED, .parent = -1};
  lock();
  fact.name = is_recording() ? text(path, strlen(path)) : 0;
  fact.address = fact.name;  // tells two paths apart
  unlock();
  tell(&fact, NULL);
}

// Reports each library once: it is mapped in several pieces, and this is called again and again.
static bool is_reported(const char *path) {
  enum { MOST = 16 };
  static uint64_t reported[MOST];
  uint64_t hash = digest(0, path, strlen(path));
  for (int i = 0; i < MOST; i++) {
    if (reported[i] == hash) return true;
    if (!reported[i]) {
      reported[i] = hash;
      return false;
    }
  }
  return true;
}

// Called where a communicator is created and where the process ends.
void look_for_others(void) {
  if (!getenv("SYMM_OBSERVER_OUT")) return;
  FILE *maps = fopen("/proc/self/maps", "re");
  char *line = NULL;
  size_t room = 0;
  while (maps && getline(&line, &room, maps) > 0) {
    unsigned major, minor;
    unsigned long inode;
    int at = 0;
    line[strcspn(line, "\n")] = 0;
    if (sscanf(line, "%*s %*s %*s %x:%x %lu %n", &major, &minor, &inode, &at) < 3 || !at) continue;
    if (is_nccl(line + at) && !is_real(major, minor, inode) && !is_reported(line + at)) report(line + at);
  }
  free(line);
  if (maps) fclose(maps);
}
