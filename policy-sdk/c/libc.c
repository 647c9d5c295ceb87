/* Memory and the few functions of a C library that a policy and its bindings need, so that a compiler is enough: no
 * wasi-libc, no WASI imports. An allocation is rounded up to a power of two and has 8 bytes before it that say which; a
 * freed one goes to the list of its size. That is constant time, and a decision frees what it allocates. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 65536u
#define HEADER 8u
#define SMALLEST 4u /* 16 bytes, header included */
#define LARGEST 30u

extern unsigned char __heap_base;

static void *lists[LARGEST + 1];
static uintptr_t next, end;

static unsigned class_of(size_t size) {
  unsigned class = SMALLEST;
  while (((size_t)1 << class) < size + HEADER) class++;
  return class;
}

static void *carve(size_t size) {
  if (next == 0) {
    next = ((uintptr_t)&__heap_base + 7) & ~(uintptr_t)7;
    end = (uintptr_t)__builtin_wasm_memory_size(0) * PAGE;
  }
  if (size > end - next) {
    size_t pages = (size - (end - next) + PAGE - 1) / PAGE;
    if (__builtin_wasm_memory_grow(0, pages) == (size_t)-1) return NULL;
    end += pages * PAGE;
  }
  void *block = (void *)next;
  next += size;
  return block;
}

void *malloc(size_t size) {
  if (size > ((size_t)1 << LARGEST) - HEADER) return NULL;
  unsigned class = class_of(size);
  unsigned char *block = lists[class];
  if (block) {
    lists[class] = *(void **)(block + HEADER);
  } else {
    block = carve((size_t)1 << class);
    if (!block) return NULL;
  }
  *(uint32_t *)block = class;
  return block + HEADER;
}

void free(void *pointer) {
  if (!pointer) return;
  unsigned char *block = (unsigned char *)pointer - HEADER;
  unsigned class = *(uint32_t *)block;
  *(void **)pointer = lists[class];
  lists[class] = block;
}

void *calloc(size_t count, size_t size) {
  if (size && count > SIZE_MAX / size) return NULL;
  void *block = malloc(count * size);
  if (block) memset(block, 0, count * size);
  return block;
}

void *realloc(void *old, size_t size) {
  if (!old) return malloc(size);
  size_t room = ((size_t)1 << *(uint32_t *)((unsigned char *)old - HEADER)) - HEADER;
  if (size <= room) return old;
  void *block = malloc(size);
  if (!block) return NULL;
  memcpy(block, old, room);
  free(old);
  return block;
}

_Noreturn void abort(void) { __builtin_trap(); }

/* A compiler may otherwise turn these loops into calls of the functions they define. */
#pragma clang diagnostic ignored "-Wunknown-attributes"
#define PLAIN __attribute__((no_builtin))

PLAIN void *memcpy(void *restrict to, const void *restrict from, size_t size) {
  unsigned char *t = to;
  const unsigned char *f = from;
  while (size--) *t++ = *f++;
  return to;
}

PLAIN void *memmove(void *to, const void *from, size_t size) {
  unsigned char *t = to;
  const unsigned char *f = from;
  if (t <= f) {
    while (size--) *t++ = *f++;
  } else {
    while (size--) t[size] = f[size];
  }
  return to;
}

PLAIN void *memset(void *to, int byte, size_t size) {
  unsigned char *t = to;
  while (size--) *t++ = (unsigned char)byte;
  return to;
}

PLAIN int memcmp(const void *a, const void *b, size_t size) {
  const unsigned char *x = a, *y = b;
  for (; size; size--, x++, y++) {
    if (*x != *y) return *x - *y;
  }
  return 0;
}

PLAIN size_t strlen(const char *text) {
  size_t length = 0;
  while (text[length]) length++;
  return length;
}

PLAIN int strcmp(const char *a, const char *b) {
  while (*a && *a == *b) a++, b++;
  return (unsigned char)*a - (unsigned char)*b;
}
