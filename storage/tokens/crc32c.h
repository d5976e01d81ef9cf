/* crc32c by what is fastest here: carry-less products, the processor's crc32c instruction in three runs side by side, or
 * tables. */
#ifndef TRAINWRIGHT_CRC32C_H
#define TRAINWRIGHT_CRC32C_H

#include <stdint.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define ONLY_WITH_SSE42 __attribute__((target("sse4.2")))
#define ONLY_WITH_PRODUCTS __attribute__((target("sse4.2,pclmul")))
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

enum { POLYNOMIAL = 0x82F63B78u, LONG = 4096, SHORT = 256 };
static uint32_t byte_table[8][256];
static uint32_t long_shift[4][256], short_shift[4][256];

/* The crc of a message followed by `length` zero bytes is a linear function of the message's crc: four tables. */
static void make_shift(uint32_t table[4][256], size_t length) {
    uint32_t column[32];
    for (int bit = 0; bit < 32; bit++) {
        uint32_t crc = 1u << bit;
        for (size_t i = 0; i < length; i++)
            crc = byte_table[0][crc & 0xFF] ^ (crc >> 8);
        column[bit] = crc;
    }
    for (int byte = 0; byte < 4; byte++)
        for (int value = 0; value < 256; value++) {
            uint32_t sum = 0;
            for (int bit = 0; bit < 8; bit++)
                if (value >> bit & 1)
                    sum ^= column[byte * 8 + bit];
            table[byte][value] = sum;
        }
}

static void make_tables(void) {
    for (uint32_t value = 0; value < 256; value++) {
        uint32_t crc = value;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? POLYNOMIAL ^ (crc >> 1) : crc >> 1;
        byte_table[0][value] = crc;
    }
    for (int row = 1; row < 8; row++)
        for (int value = 0; value < 256; value++)
            byte_table[row][value] = byte_table[0][byte_table[row - 1][value] & 0xFF] ^ (byte_table[row - 1][value] >> 8);
    make_shift(long_shift, LONG);
    make_shift(short_shift, SHORT);
}

#if defined(__x86_64__) || defined(__ARM_FEATURE_CRC32)
static uint32_t shifted(uint32_t table[4][256], uint32_t crc) {
    return table[0][crc & 0xFF] ^ table[1][crc >> 8 & 0xFF] ^ table[2][crc >> 16 & 0xFF] ^ table[3][crc >> 24];
}
#endif

static uint64_t word_at(const uint8_t *data) {
    uint64_t word;
    memcpy(&word, data, 8);
    return word;
}

static uint32_t crc_by_table(uint32_t crc, const uint8_t *data, size_t size) {
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word = word_at(data) ^ crc;
        crc = 0;
        for (int byte = 0; byte < 8; byte++)
            crc ^= byte_table[7 - byte][word >> (8 * byte) & 0xFF];
    }
    for (; size; data++, size--)
        crc = byte_table[0][(crc ^ *data) & 0xFF] ^ (crc >> 8);
    return crc;
}

/* The instruction takes three cycles and can start every cycle: three runs side by side, joined by the shifts. */
#define CRC_WITH_INSTRUCTION(NAME, TARGET, STEP8, STEP1)                                                               \
    TARGET static size_t NAME##_runs(uint32_t *crc, const uint8_t *data, size_t size, size_t run,                      \
                                     uint32_t shift[4][256]) {                                                         \
        size_t done = 0;                                                                                               \
        for (; size - done >= 3 * run; done += 3 * run) {                                                              \
            uint64_t a = *crc, b = 0, c = 0;                                                                           \
            const uint8_t *at = data + done;                                                                           \
            for (size_t i = 0; i < run; i += 8) {                                                                      \
                a = STEP8(a, word_at(at + i));                                                                         \
                b = STEP8(b, word_at(at + run + i));                                                                   \
                c = STEP8(c, word_at(at + 2 * run + i));                                                               \
            }                                                                                                          \
            *crc = shifted(shift, shifted(shift, (uint32_t)a) ^ (uint32_t)b) ^ (uint32_t)c;                            \
        }                                                                                                              \
        return done;                                                                                                   \
    }                                                                                                                  \
    TARGET static uint32_t NAME(uint32_t crc, const uint8_t *data, size_t size) {                                      \
        size_t done = NAME##_runs(&crc, data, size, LONG, long_shift);                                                 \
        done += NAME##_runs(&crc, data + done, size - done, SHORT, short_shift);                                       \
        for (; size - done >= 8; done += 8)                                                                            \
            crc = (uint32_t)STEP8(crc, word_at(data + done));                                                          \
        for (; done < size; done++)                                                                                    \
            crc = STEP1(crc, data[done]);                                                                              \
        return crc;                                                                                                    \
    }

#if defined(__x86_64__)
CRC_WITH_INSTRUCTION(crc_by_instruction, ONLY_WITH_SSE42, _mm_crc32_u64, _mm_crc32_u8)
#elif defined(__ARM_FEATURE_CRC32)
CRC_WITH_INSTRUCTION(crc_by_instruction, , __crc32cd, __crc32cb)
#endif

#if defined(__x86_64__)
/* By carry-less products: four runs of 16 bytes are carried on by 64 bytes at a time, since a run times x^N is, modulo the
 * polynomial, two products of its halves with constants. V. Gopal et al., "Fast CRC Computation for Generic Polynomials
 * Using PCLMULQDQ Instruction", Intel, 2009; bits are reflected, which makes the constants x^(N+31) and x^(N-33).
 */
static uint64_t by_64[2], by_16[2];

static uint64_t power_of_x(int exponent) {
    uint32_t crc = 1u << 31;
    while (exponent--)
        crc = crc & 1 ? POLYNOMIAL ^ (crc >> 1) : crc >> 1;
    return crc;
}

ONLY_WITH_PRODUCTS static inline __m128i carried_on(__m128i run, __m128i by, __m128i data) {
    const __m128i low = _mm_clmulepi64_si128(run, by, 0x00), high = _mm_clmulepi64_si128(run, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), data);
}

ONLY_WITH_PRODUCTS static inline __m128i at_16(const uint8_t *data) { return _mm_loadu_si128((const __m128i *)data); }

ONLY_WITH_PRODUCTS static uint32_t crc_by_products(uint32_t crc, const uint8_t *data, size_t size) {
    if (size < 128)
        return crc_by_instruction(crc, data, size);
    __m128i by = _mm_set_epi64x((long long)by_64[1], (long long)by_64[0]);
    __m128i a = _mm_xor_si128(at_16(data), _mm_cvtsi32_si128((int)crc));
    __m128i b = at_16(data + 16), c = at_16(data + 32), d = at_16(data + 48);
    size_t done = 64;
    for (; size - done >= 64; done += 64) {
        const uint8_t *at = data + done;
        a = carried_on(a, by, at_16(at)), b = carried_on(b, by, at_16(at + 16));
        c = carried_on(c, by, at_16(at + 32)), d = carried_on(d, by, at_16(at + 48));
    }
    by = _mm_set_epi64x((long long)by_16[1], (long long)by_16[0]);
    a = carried_on(carried_on(carried_on(a, by, b), by, c), by, d);
    const uint64_t begun = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(a));
    crc = (uint32_t)_mm_crc32_u64(begun, (uint64_t)_mm_extract_epi64(a, 1));
    return crc_by_instruction(crc, data + done, size - done);
}
#endif

typedef uint32_t (*crc_function)(uint32_t, const uint8_t *, size_t);
static crc_function update = crc_by_table;

static uint32_t crc32c_of(const uint8_t *data, size_t size) { return ~update(~0u, data, size); }

#if defined(__x86_64__)
static int64_t nanoseconds_of(crc_function function) {
    static const uint8_t data[1 << 14];
    int64_t best = INT64_MAX;
    volatile uint32_t crc = 0;
    for (int turn = 0; turn < 4; turn++) { /* the first brings data into the cache */
        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        crc = function(crc, data, sizeof data);
        clock_gettime(CLOCK_MONOTONIC, &to);
        const int64_t took = (to.tv_sec - from.tv_sec) * 1000000000 + to.tv_nsec - from.tv_nsec;
        best = took < best ? took : best;
    }
    return best;
}
#endif

/* Once, before the first crc32c_of. Which of two ways is faster depends on the processor: it is tried. */
static void crc32c_prepare(void) {
    make_tables();
#if defined(__x86_64__)
    by_64[0] = power_of_x(512 + 31), by_64[1] = power_of_x(512 - 33);
    by_16[0] = power_of_x(128 + 31), by_16[1] = power_of_x(128 - 33);
    if (__builtin_cpu_supports("sse4.2"))
        update = crc_by_instruction;
    if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul") &&
        nanoseconds_of(crc_by_products) < nanoseconds_of(crc_by_instruction))
        update = crc_by_products;
#elif defined(__ARM_FEATURE_CRC32)
    update = crc_by_instruction;
#endif
}

#endif
