/* Tokens of 16 or 32 bits copied to wider integers, with the widest vectors that this processor has. */
#ifndef TRAINWRIGHT_WIDEN_H
#define TRAINWRIGHT_WIDEN_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__)
#define FOR_EACH_CPU __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_CPU
#endif

FOR_EACH_CPU static void widen_16_64(int64_t *restrict to, const uint16_t *restrict from, size_t count) {
    for (size_t i = 0; i < count; i++)
        to[i] = from[i];
}

FOR_EACH_CPU static void widen_32_64(int64_t *restrict to, const uint32_t *restrict from, size_t count) {
    for (size_t i = 0; i < count; i++)
        to[i] = from[i];
}

FOR_EACH_CPU static void widen_16_32(uint32_t *restrict to, const uint16_t *restrict from, size_t count) {
    for (size_t i = 0; i < count; i++)
        to[i] = from[i];
}

#endif
