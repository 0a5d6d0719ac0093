// The functions of NCCL that the observer stands in front of, in words of our own: types are what the ABI passes.

#ifndef SYMM_NCCL_H
#define SYMM_NCCL_H

#include <stddef.h>

// The 128 bytes that NCCL passes by value.
struct id {
  char bytes[128];
};

// The beginning of NCCL's configuration. `name` is there if `size` reaches past it (2.27 and later).
struct config {
  size_t size;
  unsigned magic, version;
  int blocking, cga, least, most;
  const char *net;
  int share, traffic;
  const char *name;
};

int ncclGetVersion(int *version);
int ncclCommCount(void *comm, int *size);
int ncclCommUserRank(void *comm, int *rank);
int ncclCommGetAsyncError(void *comm, int *state);
int ncclCommInitRank(void **comm, int size, struct id id, int rank);
int ncclCommInitRankConfig(void **comm, int size, struct id id, int rank, struct config *config);
int ncclCommInitRankScalable(void **comm, int size, int rank, int ids, struct id *id, struct config *config);
int ncclCommInitAll(void **comms, int size, const int *devices);
int ncclCommSplit(void *comm, int colour, int key, void **made, struct config *config);
int ncclCommShrink(void *comm, int *ranks, int count, void **made, struct config *config, int flags);
int ncclCommGrow(void *comm, int size, const struct id *id, int rank, void **made, struct config *config);
int ncclCommFinalize(void *comm);
int ncclCommDestroy(void *comm);
int ncclCommAbort(void *comm);
int ncclCommRevoke(void *comm, int flags);
int ncclMemAlloc(void **address, size_t size);
int ncclMemFree(void *address);
int ncclCommRegister(void *comm, void *address, size_t size, void **handle);
int ncclCommWindowRegister(void *comm, void *address, size_t size, void **window, int flags);
int ncclCommWindowDeregister(void *comm, void *window);
int ncclGroupStart(void);
int ncclGroupEnd(void);
int ncclGroupSimulateEnd(void *told);

// Functions that are asked, and those that are stood in front of. `build.py` reads the latter.
#define ASKED(Y) Y(GetVersion) Y(CommCount) Y(CommUserRank)
#define WRAPPED(X)                                                                                                  \
  X(CommGetAsyncError) X(CommInitRank) X(CommInitRankConfig) X(CommInitRankScalable) X(CommInitAll) X(CommSplit)    \
  X(CommShrink) X(CommGrow) X(CommFinalize) X(CommDestroy) X(CommAbort) X(CommRevoke) X(MemAlloc) X(MemFree)        \
  X(CommRegister) X(CommWindowRegister) X(CommWindowDeregister) X(GroupStart) X(GroupEnd) X(GroupSimulateEnd)

#define BUFFERS const void *send, void *receive
#define LAST void *comm, void *stream

// Collectives: name, function, parameters, arguments; then the send and the receive buffer, op, and root or peer.
// From 2.31 on, most have a twin with a configuration as its last parameter.
#define COLLECTIVES(X)                                                                                              \
  X(AllGather, ALL_GATHER, (BUFFERS, size_t count, int dtype, LAST), (send, receive, count, dtype, comm, stream),   \
    send, receive, -1, -1)                                                                                          \
  X(AlltoAll, ALL_TO_ALL, (BUFFERS, size_t count, int dtype, LAST), (send, receive, count, dtype, comm, stream),    \
    send, receive, -1, -1)                                                                                          \
  X(AllReduce, ALL_REDUCE, (BUFFERS, size_t count, int dtype, int op, LAST),                                        \
    (send, receive, count, dtype, op, comm, stream), send, receive, op, -1)                                         \
  X(ReduceScatter, REDUCE_SCATTER, (BUFFERS, size_t count, int dtype, int op, LAST),                                \
    (send, receive, count, dtype, op, comm, stream), send, receive, op, -1)                                         \
  X(Reduce, REDUCE, (BUFFERS, size_t count, int dtype, int op, int root, LAST),                                     \
    (send, receive, count, dtype, op, root, comm, stream), send, receive, op, root)                                 \
  X(Broadcast, BROADCAST, (BUFFERS, size_t count, int dtype, int root, LAST),                                       \
    (send, receive, count, dtype, root, comm, stream), send, receive, -1, root)                                     \
  X(Gather, GATHER, (BUFFERS, size_t count, int dtype, int root, LAST),                                             \
    (send, receive, count, dtype, root, comm, stream), send, receive, -1, root)                                     \
  X(Scatter, SCATTER, (BUFFERS, size_t count, int dtype, int root, LAST),                                           \
    (send, receive, count, dtype, root, comm, stream), send, receive, -1, root)                                     \
  X(Bcast, BROADCAST, (void *buffer, size_t count, int dtype, int root, LAST),                                      \
    (buffer, count, dtype, root, comm, stream), buffer, buffer, -1, root)                                           \
  X(Send, SEND, (const void *send, size_t count, int dtype, int peer, LAST),                                        \
    (send, count, dtype, peer, comm, stream), send, NULL, -1, peer)                                                 \
  X(Recv, RECV, (void *receive, size_t count, int dtype, int peer, LAST),                                           \
    (receive, count, dtype, peer, comm, stream), NULL, receive, -1, peer)

#define ONLY(...) __VA_ARGS__
#define POINTER(name) __typeof__(nccl##name) *name;
#define POINTERS(name, function, parameters, ...) \
  int(*name) parameters;                          \
  int (*name##Config)(ONLY parameters, const void *config);

// The real functions, by their second names `pnccl…`. NULL: this NCCL has none.
struct real {
  ASKED(POINTER)
  WRAPPED(POINTER)
  COLLECTIVES(POINTERS)
};
extern struct real real;

#endif
