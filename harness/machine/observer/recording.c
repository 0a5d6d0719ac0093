// The file of one process: a header, a table of facts, their sequence, and texts. `records.py` has the same layout.
//
// The file is mapped and shared, so the kernel keeps it whatever ends the process. Space is reserved before a byte of
// it is touched: a store into a mapped file on a full disk would be a SIGBUS. No descriptor stays open, because
// programs that close all descriptors would leave its number to another file.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "observer.h"

enum { LAYOUT = 1, MOST_FACTS = 32768, MOST_CALLS = MOST_FACTS / 4 * 3, MOST_EVENTS = 1200000, MOST_TEXT = 1 << 20 };
enum { HEADER = 4096, CHUNK = 1 << 17, BUCKETS = 1 << 16, TEXT_BUCKETS = 1 << 13, MOST_PROBES = 64 };

struct header {
  char magic[8];
  uint32_t layout;
  int32_t nccl;
  uint32_t pid, parent;
  int32_t rank;
  uint32_t host, real, command;  // texts
  double began;
  uint32_t facts_at, sequence_at, texts_at;
  uint32_t facts, text_bytes;
  uint32_t unused;
  uint64_t events, ordered, lost_facts, unmatched;
  uint32_t in_flight[MOST_THREADS];  // number of a fact and 1; 0: none
};

enum { FACTS_AT = HEADER, SEQUENCE_AT = FACTS_AT + MOST_FACTS * (int)sizeof(struct fact) };
enum { TEXTS_AT = SEQUENCE_AT + MOST_EVENTS * 4, BYTES = TEXTS_AT + MOST_TEXT };
_Static_assert(sizeof(struct header) <= HEADER && sizeof(struct fact) == 120, "the layout that is read");
_Static_assert(BYTES <= 10 << 20, "a file has at most 10 MiB");

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static enum { UNTRIED, OPEN, FULL, OFF } state;
static struct header *header;
static char path[PATH_MAX + NAME_MAX];
static uint32_t buckets[BUCKETS], text_buckets[TEXT_BUCKETS];

static struct area {
  int begins;
  int reserved;  // bytes from there on that have room on the disk
} facts = {FACTS_AT, 0}, sequence = {SEQUENCE_AT, 0}, texts = {TEXTS_AT, 0};

void lock(void) { pthread_mutex_lock(&mutex); }
void unlock(void) { pthread_mutex_unlock(&mutex); }

static void complain(const char *about, int error) {
  fprintf(stderr, "symm: %s cannot be written: %s; process %d goes on, and no more of it is recorded\n", about,
          strerror(error), (int)getpid());
}

static bool reserve(struct area *area, size_t bytes) {
  if (bytes <= (size_t)area->reserved) return true;
  if (state == FULL) return false;
  int file = open(path, O_RDWR | O_CLOEXEC);
  int error = file < 0 ? errno : posix_fallocate(file, area->begins + area->reserved, CHUNK);
  if (file >= 0) close(file);
  if (error) {
    complain(path, error);
    state = FULL;
    return false;
  }
  area->reserved += CHUNK;
  return reserve(area, bytes);
}

static struct fact *fact_at(uint32_t number) { return (struct fact *)((char *)header + FACTS_AT) + number; }
static uint32_t *event_at(uint64_t event) { return (uint32_t *)((char *)header + SEQUENCE_AT) + event; }
static char *text_at(uint32_t text) { return (char *)header + TEXTS_AT + text; }

// A text is its length in four bytes, then its bytes. Text 0 is empty.
static bool is_text(uint32_t number, const char *bytes, uint32_t size) {
  uint32_t length;
  memcpy(&length, text_at(number), 4);
  return length == size && !memcmp(text_at(number) + 4, bytes, size);
}

static uint32_t add_text(const char *bytes, uint32_t size) {
  uint32_t number = header->text_bytes, end = number + 4 + size;
  if (end > MOST_TEXT || !reserve(&texts, end)) return 0;
  memcpy(text_at(number), &size, 4);
  memcpy(text_at(number) + 4, bytes, size);
  __atomic_store_n(&header->text_bytes, end, __ATOMIC_RELEASE);
  return number;
}

uint32_t text(const char *bytes, size_t size) {
  if (!size || !header) return 0;
  uint64_t hash = digest(0, bytes, size);
  for (int probe = 0; probe < MOST_PROBES; probe++) {
    uint32_t *bucket = &text_buckets[(hash + probe) % TEXT_BUCKETS];
    if (!*bucket) return *bucket = add_text(bytes, size);
    if (is_text(*bucket, bytes, size)) return *bucket;
  }
  return add_text(bytes, size);
}

static int global_rank(void) {
  const char *names[] = {"RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const char *value = getenv(names[i]);
    char *end = NULL;
    long rank = value ? strtol(value, &end, 10) : -1;
    if (value && end != value && !*end && rank >= 0 && rank <= INT_MAX) return rank;
  }
  return -1;
}

static uint32_t command_line(void) {
  char bytes[1024];
  int file = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
  ssize_t size = file < 0 ? 0 : read(file, bytes, sizeof bytes);
  if (file >= 0) close(file);
  return size > 0 ? text(bytes, size) : 0;
}

static void fill_header(const char *host) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  header->layout = LAYOUT;
  header->nccl = real_version();
  header->pid = getpid();
  header->parent = getppid();
  header->rank = global_rank();
  header->began = now.tv_sec + now.tv_nsec / 1e9;
  header->facts_at = FACTS_AT, header->sequence_at = SEQUENCE_AT, header->texts_at = TEXTS_AT;
  header->text_bytes = 4;
  header->host = text(host, strlen(host));
  header->real = text(real_path, strlen(real_path));
  header->command = command_line();
  __atomic_thread_fence(__ATOMIC_RELEASE);
  memcpy(header->magic, "SYMMOBS", 8);  // last: a file that has it is whole
}

static int create(const char *folder, const char *host) {
  char plain[HOST_NAME_MAX + 1];
  snprintf(plain, sizeof plain, "%s", host);
  for (char *each = plain; *each; each++)
    if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_", *each)) *each = '_';
  for (int n = 0;; n++) {
    snprintf(path, sizeof path, "%s/%s-%d-%d.symm", folder, plain, (int)getpid(), n);
    int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file >= 0 || errno != EEXIST) return file;
  }
}

// A file that grows past the limit of the process would end the process.
static bool is_past_limit(void) {
  struct rlimit limit;
  return !getrlimit(RLIMIT_FSIZE, &limit) && limit.rlim_cur < BYTES;
}

// Returns 0 or the error.
static int map(int file) {
  if (is_past_limit()) return EFBIG;
  if (ftruncate(file, BYTES)) return errno;
  int error = posix_fallocate(file, 0, HEADER);
  if (error) return error;
  void *mapped = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (mapped == MAP_FAILED) return errno;
  header = mapped;
  return 0;
}

static void open_recording(void) {
  const char *named = getenv("SYMM_OBSERVER_OUT");
  state = OFF;
  if (!named || !*named) return;
  char folder[PATH_MAX], host[HOST_NAME_MAX + 1] = "";
  gethostname(host, sizeof host - 1);
  int file = realpath(named, folder) ? create(folder, host) : -1;
  int error = file < 0 ? errno : map(file);
  if (file >= 0) close(file);
  if (error) {
    complain(named, error);
    if (file >= 0) unlink(path);
    return;
  }
  state = OPEN;
  fill_header(host);
}

// Whether facts of this process go to a file. The caller holds the mutex, as for all functions below.
bool is_recording(void) {
  if (state == UNTRIED) open_recording();
  return header;
}

struct fact *record(uint32_t number) { return fact_at(number); }
uint32_t facts_there(void) { return header->facts; }

uint32_t add(const struct fact *fact) {
  if (!is_recording()) return NONE;
  uint32_t number = header->facts;
  bool has_room = number < (fact->kind == CALL ? MOST_CALLS : MOST_FACTS);
  if (!has_room || !reserve(&facts, (number + 1) * sizeof *fact)) {
    header->lost_facts++;
    return NONE;
  }
  *fact_at(number) = *fact;
  __atomic_store_n(&header->facts, number + 1, __ATOMIC_RELEASE);
  return number;
}

static uint64_t mixed(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
  return hash ^ hash >> 29;
}

static uint64_t hash_of(const struct fact *fact) {
  uint64_t hash = mixed(fact->kind | (uint64_t)fact->communicator << 32, fact->word | (uint64_t)fact->flags << 32);
  hash = mixed(hash, (uint32_t)fact->rank | (uint64_t)fact->size << 32);
  hash = mixed(mixed(hash, fact->address), fact->other);
  return mixed(mixed(mixed(hash, fact->count), fact->caller), fact->result);
}

static bool is_equal(const struct fact *a, const struct fact *b) {
  return a->kind == b->kind && a->communicator == b->communicator && a->word == b->word && a->flags == b->flags &&
         a->rank == b->rank && a->size == b->size && a->address == b->address && a->other == b->other &&
         a->count == b->count && a->caller == b->caller && a->result == b->result && a->colour == b->colour;
}

// The bucket of an equal fact, or an empty one. The table has twice as many buckets as facts.
static uint32_t *bucket_of(const struct fact *fact) {
  for (uint64_t hash = hash_of(fact);; hash++) {
    uint32_t *bucket = &buckets[hash % BUCKETS];
    if (!*bucket || is_equal(fact_at(*bucket - 1), fact)) return bucket;
  }
}

uint32_t find(const struct fact *fact) { return *bucket_of(fact) - 1; }

uint32_t find_or_add(const struct fact *fact) {
  if (!is_recording()) return NONE;
  uint32_t *bucket = bucket_of(fact);
  if (!*bucket) *bucket = add(fact) + 1;
  return *bucket - 1;
}

// Appends to the sequence. Returns the place.
uint64_t happened(uint32_t number) {
  if (number == NONE) return UINT64_MAX;
  uint64_t event = header->events++;
  if (event >= MOST_EVENTS || event != header->ordered || !reserve(&sequence, (event + 1) * 4)) return UINT64_MAX;
  *event_at(event) = number;
  __atomic_store_n(&header->ordered, event + 1, __ATOMIC_RELEASE);
  return event;
}

// NCCL reports a call that was not made here: the program reached the real library by its path.
void unmatched(void) {
  if (!is_recording()) return;
  struct fact fact = {.kind = UNOBSERVED, .parent = -1, .name = header->real, .address = header->real};
  header->unmatched++;
  uint32_t number = find_or_add(&fact);
  if (number == NONE) return;
  if (!record(number)->calls++) happened(number);
  record(number)->handle++;
}

void happened_instead(uint64_t event, uint32_t number) {
  if (event != UINT64_MAX && number != NONE) *event_at(event) = number;
}

// Notes that a thread has entered a fact. Returns the slot for `land`.
int fly(uint32_t number) {
  if (number == NONE) return -1;
  for (uint32_t i = 0; i < MOST_THREADS; i++) {
    uint32_t slot = (here.number + i) % MOST_THREADS;
    if (header->in_flight[slot]) continue;
    header->in_flight[slot] = number + 1;
    return slot;
  }
  return -1;
}

// Needs no mutex: a taken slot has one owner.
void land(int slot) {
  if (slot >= 0 && header) __atomic_store_n(&header->in_flight[slot], 0, __ATOMIC_RELEASE);
}

// In a forked child: the file is the parent's, and a thread that holds the mutex may be there no more.
void forget_recording(void) {
  pthread_mutex_init(&mutex, NULL);
  if (header) munmap(header, BYTES);
  header = NULL;
  state = UNTRIED;
  facts.reserved = sequence.reserved = texts.reserved = 0;
  memset(buckets, 0, sizeof buckets);
  memset(text_buckets, 0, sizeof text_buckets);
}
