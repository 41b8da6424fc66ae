/* How fast THREADS threads read BYTES bytes of memory in large pages: read_memory BYTES THREADS PASSES AHEAD.
   Prints the seconds of each pass. AHEAD: bytes that are asked for beforehand, 0 leaves it to the hardware. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static uint64_t *values;
static size_t share;
static int passes, threads;
static size_t ahead;
static uint64_t sums[256];
static pthread_barrier_t barrier;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void *read_share(void *argument) {
  size_t mine = (size_t)argument;
  const uint64_t *from = values + mine * share;
  for (int pass = 0; pass < passes; pass++) {
    pthread_barrier_wait(&barrier);
    double begun = now();
    /* Eight sums, so that no addition waits for the one before. */
    uint64_t s[8] = {0};
    for (size_t i = 0; i + 8 <= share; i += 8) {
      if (ahead) __builtin_prefetch(from + i + ahead);
      for (int k = 0; k < 8; k++) s[k] += from[i + k];
    }
    for (int k = 0; k < 8; k++) sums[mine] += s[k];
    pthread_barrier_wait(&barrier);
    if (mine == 0) printf("%.9f\n", now() - begun);
  }
  return NULL;
}

int main(int count, char **words) {
  if (count != 5) return 2;
  size_t bytes = strtoull(words[1], NULL, 10);
  threads = atoi(words[2]);
  passes = atoi(words[3]);
  ahead = strtoull(words[4], NULL, 10) / 8;
  if (threads < 1 || threads > 256) return 2;
  share = bytes / 8 / threads;
  size_t page = 2 << 20, room = (share * threads * 8 + page - 1) / page * page;
  values = aligned_alloc(page, room);
  if (!values) return 1;
#ifdef MADV_HUGEPAGE
  madvise(values, room, MADV_HUGEPAGE);
#endif
  memset(values, 1, share * threads * 8);
  pthread_barrier_init(&barrier, NULL, threads);
  pthread_t started[256];
  for (size_t i = 1; i < (size_t)threads; i++) pthread_create(&started[i], NULL, read_share, (void *)i);
  read_share((void *)0);
  for (int i = 1; i < threads; i++) pthread_join(started[i], NULL);
  uint64_t total = 0;
  for (int i = 0; i < threads; i++) total += sums[i];
  return total == 42; /* used, so that the reading can't be left out */
}
