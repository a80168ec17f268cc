/*
 * Peak of fused multiply-adds: `fma-peak THREADS` prints GFLOP/s in float32 over all threads together.
 * Each thread runs CHAINS independent chains, enough to hide the latency of the FMA units, on vectors of 16,
 * 32 and 64 bytes; the best width counts, so that one source serves SSE/NEON, AVX2 and AVX-512.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define CHAINS 12
#define ROUNDS 10000000L

static pthread_barrier_t barrier;
static volatile float one = 1.0f, tiny = 1e-9f;
static volatile float sink;

#define KERNEL(BYTES)                                                         \
  typedef float vector##BYTES __attribute__((vector_size(BYTES)));            \
  static void run##BYTES(void) {                                              \
    vector##BYTES factor = (vector##BYTES){} + one;                           \
    vector##BYTES term = (vector##BYTES){} + tiny;                            \
    vector##BYTES chain[CHAINS];                                              \
    for (int c = 0; c < CHAINS; c++) chain[c] = factor * (float)c;            \
    for (long i = 0; i < ROUNDS; i++) {                                       \
      _Pragma("GCC unroll 12") for (int c = 0; c < CHAINS; c++)               \
        chain[c] = chain[c] * factor + term;                                  \
    }                                                                         \
    for (int c = 1; c < CHAINS; c++) chain[0] += chain[c];                    \
    sink = chain[0][0];                                                       \
  }
KERNEL(16)
KERNEL(32)
KERNEL(64)

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

struct job {
  void (*kernel)(void);
  double start, end;
};

static void *worker(void *argument) {
  struct job *job = argument;
  pthread_barrier_wait(&barrier);
  job->start = now();
  job->kernel();
  job->end = now();
  return NULL;
}

static double gflops(void (*kernel)(void), int bytes, int threads) {
  pthread_t ids[threads];
  struct job jobs[threads];
  pthread_barrier_init(&barrier, NULL, threads);
  for (int i = 0; i < threads; i++) {
    jobs[i].kernel = kernel;
    pthread_create(&ids[i], NULL, worker, &jobs[i]);
  }
  for (int i = 0; i < threads; i++) pthread_join(ids[i], NULL);
  pthread_barrier_destroy(&barrier);
  double start = jobs[0].start, end = jobs[0].end;
  for (int i = 1; i < threads; i++) {
    if (jobs[i].start < start) start = jobs[i].start;
    if (jobs[i].end > end) end = jobs[i].end;
  }
  return 1e-9 * threads * ROUNDS * CHAINS * (bytes / 4) * 2 / (end - start);
}

int main(int argc, char **argv) {
  int threads = argc > 1 ? atoi(argv[1]) : 1;
  double best = 0;
  for (int repeat = 0; repeat < 3; repeat++) {
    double speeds[] = {gflops(run16, 16, threads), gflops(run32, 32, threads),
                       gflops(run64, 64, threads)};
    for (int i = 0; i < 3; i++) best = speeds[i] > best ? speeds[i] : best;
  }
  printf("%.1f\n", best);
  return 0;
}
