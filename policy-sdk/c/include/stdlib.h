/* What the policy SDK needs of a C library, for compilers that come without one; see libc.c. */
#ifndef POINTSMAN_STDLIB_H
#define POINTSMAN_STDLIB_H
#include <stddef.h>

void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void *realloc(void *old, size_t size);
void free(void *block);
_Noreturn void abort(void);

#endif
