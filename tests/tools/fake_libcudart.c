// What libcudart knows of captures and graphs, for machines without a GPU. A stream is any number but 0, and nothing is
// enqueued. Addresses of graphs and of what they are instantiated to come again once they are destroyed, as CUDA's do.

#include <pthread.h>
#include <stddef.h>

enum { SUCCESS = 0, ILLEGAL_STATE = 401, UNSUPPORTED = 900, WRONG_THREAD = 908, RELAXED = 2, MOST = 16 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct {
  unsigned long long id;  // of the capture; that of `origin` for a stream that has joined
  void *stream, *origin;  // NULL: this place is free; a stream that has joined has another one's capture
  int mode;
  pthread_t thread;
} open[MOST];

static int place_of(void *stream) {
  int i = 0;
  while (i < MOST && open[i].stream != stream) i++;
  return i;
}

static unsigned long long captures;

static int begin(void *stream, void *origin, int mode) {
  if (!stream) return UNSUPPORTED;
  pthread_mutex_lock(&mutex);
  int place = place_of(stream) == MOST ? place_of(NULL) : MOST;
  if (place < MOST) {
    open[place].id = stream == origin ? ++captures : open[place_of(origin)].id;
    open[place].stream = stream;
    open[place].origin = origin;
    open[place].mode = mode;
    open[place].thread = pthread_self();
  }
  pthread_mutex_unlock(&mutex);
  return place < MOST ? SUCCESS : ILLEGAL_STATE;
}

static int end(void *stream) {
  int place = place_of(stream);
  if (place == MOST || open[place].origin != stream) return ILLEGAL_STATE;
  if (open[place].mode != RELAXED && !pthread_equal(open[place].thread, pthread_self())) return WRONG_THREAD;
  for (int i = 0; i < MOST; i++)
    if (open[i].origin == stream) open[i].stream = open[i].origin = NULL;
  return SUCCESS;
}

static char handles[4096], is_taken[4096];

static void *made(void) {
  int place = 0;
  while (is_taken[place]) place++;
  is_taken[place] = 1;
  return &handles[place];
}

static int destroy(void *handle) {
  pthread_mutex_lock(&mutex);
  is_taken[(char *)handle - handles] = 0;
  pthread_mutex_unlock(&mutex);
  return SUCCESS;
}

static int give(void **handle) {
  pthread_mutex_lock(&mutex);
  *handle = made();
  pthread_mutex_unlock(&mutex);
  return SUCCESS;
}

int cudaGraphCreate(void **graph, unsigned flags) { return give(graph); }
int cudaGraphInstantiate(void **executable, void *graph, unsigned long long flags) { return give(executable); }
int cudaGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) { return give(executable); }
int cudaGraphInstantiateWithParams(void **executable, void *graph, void *parameters) { return give(executable); }
int cudaGraphClone(void **clone, void *graph) { return give(clone); }
int cudaGraphExecUpdate(void *executable, void *graph, void *result) { return SUCCESS; }
int cudaGraphLaunch(void *executable, void *stream) { return executable ? SUCCESS : 1; }
int cudaGraphInstantiateWithParams_ptsz(void **executable, void *graph, void *parameters) { return give(executable); }
int cudaGraphLaunch_ptsz(void *executable, void *stream) { return executable ? SUCCESS : 1; }
int cudaGraphDestroy(void *graph) { return destroy(graph); }
int cudaGraphExecDestroy(void *executable) { return destroy(executable); }

int cudaStreamBeginCapture(void *stream, int mode) { return begin(stream, stream, mode); }

int cudaStreamBeginCaptureToGraph(void *stream, void *graph, const void *nodes, const void *edges, size_t count,
                                  int mode) {
  return begin(stream, stream, mode);
}

int cudaStreamEndCapture(void *stream, void **graph) {
  pthread_mutex_lock(&mutex);
  int result = stream ? end(stream) : ILLEGAL_STATE;
  pthread_mutex_unlock(&mutex);
  *graph = result ? NULL : made();
  return result;
}

int cudaStreamGetCaptureInfo_v2(void *stream, int *status, unsigned long long *id, void *graph, void *nodes, void *count) {
  pthread_mutex_lock(&mutex);
  int place = stream ? place_of(stream) : MOST;
  *status = place < MOST;
  if (*status) *id = open[place].id;
  pthread_mutex_unlock(&mutex);
  return SUCCESS;
}

int cudaStreamIsCapturing(void *stream, int *status) {
  pthread_mutex_lock(&mutex);
  *status = stream && place_of(stream) < MOST;
  pthread_mutex_unlock(&mutex);
  return SUCCESS;
}

// In place of an event that one stream records and another waits for.
int fakeStreamJoins(void *origin, void *stream) { return begin(stream, origin, RELAXED); }
