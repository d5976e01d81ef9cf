/* Makes the bytes of inner chunks out of tokens: each chunk's tokens and their crc32c, and a count of every token id.
 *
 * One pass while a chunk is in the processor's cache, without the interpreter's lock. Built for the stable ABI.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#include "crc32c.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tokens are little endian; on this machine trainwright writes them with NumPy"
#endif

enum { CRC_BYTES = 4 };

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__)
#define FOR_EACH_CPU __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_CPU
#endif

FOR_EACH_CPU static uint32_t highest_16(const uint16_t *tokens, Py_ssize_t count) {
    uint16_t highest = 0;
    for (Py_ssize_t i = 0; i < count; i++)
        highest = tokens[i] > highest ? tokens[i] : highest;
    return highest;
}

FOR_EACH_CPU static uint32_t highest_32(const uint32_t *tokens, Py_ssize_t count) {
    uint32_t highest = 0;
    for (Py_ssize_t i = 0; i < count; i++)
        highest = tokens[i] > highest ? tokens[i] : highest;
    return highest;
}

/* Eight ids are loaded before the first is counted: a load that follows a store to an unknown place waits for it, which
 * makes the plain loop five times slower. Counts have 32 bits, so that those of a large vocabulary fit the second cache.
 * Tokens of the next chunk, or past the end, are asked for meanwhile: that never faults. */
#define COUNT_EACH(NAME, TYPE)                                                                                         \
    static void NAME(const TYPE *tokens, Py_ssize_t count, uint32_t *counts) {                                         \
        Py_ssize_t i = 0;                                                                                              \
        for (; count - i >= 8; i += 8) {                                                                               \
            __builtin_prefetch(tokens + i + count);                                                                    \
            TYPE ids[8];                                                                                               \
            memcpy(ids, tokens + i, sizeof ids);                                                                       \
            for (int k = 0; k < 8; k++)                                                                                \
                counts[ids[k]]++;                                                                                      \
        }                                                                                                              \
        for (; i < count; i++)                                                                                         \
            counts[tokens[i]]++;                                                                                       \
    }

COUNT_EACH(count_16, uint16_t)
COUNT_EACH(count_32, uint32_t)

/* Counts the ids; 0, with none counted, if one of them is not below `limit`. */
static int counted(const uint8_t *data, Py_ssize_t count, int itemsize, uint64_t limit, uint32_t *counts) {
    const uint16_t *narrow = (const uint16_t *)data;
    const uint32_t *wide = (const uint32_t *)data;
    if ((itemsize == 2 ? highest_16(narrow, count) : highest_32(wide, count)) >= limit)
        return 0;
    itemsize == 2 ? count_16(narrow, count, counts) : count_32(wide, count, counts);
    return 1;
}

static void frame_chunk(uint8_t *to, const uint8_t *from, size_t bytes) {
    const uint32_t crc = crc32c_of(from, bytes);
    memcpy(to, from, bytes);
    memcpy(to + bytes, &crc, CRC_BYTES);
}

PyDoc_STRVAR(frame_doc,
             "frame(tokens, itemsize, chunk_tokens, out, counts) -> bool\n\n"
             "Write whole inner chunks, tokens and crc32c, to the beginning of `out`, and add each id's count to `counts`.\n"
             "tokens: bytes of a multiple of chunk_tokens tokens of 2 or 4 bytes; counts: uint32 [vocabulary]. False, with\n"
             "counts and out incomplete, if an id has no place in counts. Raises ValueError for what does not fit.");

static PyObject *frame(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer tokens, out, counts;
    int itemsize, good = 1;
    Py_ssize_t chunk_tokens;
    if (!PyArg_ParseTuple(args, "y*inw*w*", &tokens, &itemsize, &chunk_tokens, &out, &counts))
        return NULL;
    const Py_ssize_t bytes = chunk_tokens * itemsize;
    const Py_ssize_t chunks = bytes > 0 ? tokens.len / bytes : 0;
    const int fits = (itemsize == 2 || itemsize == 4) && chunk_tokens > 0 && chunks * bytes == tokens.len &&
                     chunks * (bytes + CRC_BYTES) <= out.len;
    if (fits) {
        const uint64_t limit = (uint64_t)counts.len / sizeof(uint32_t);
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < chunks && good; i++) {
            const uint8_t *from = (const uint8_t *)tokens.buf + i * bytes;
            frame_chunk((uint8_t *)out.buf + i * (bytes + CRC_BYTES), from, (size_t)bytes);
            good = counted(from, chunk_tokens, itemsize, limit, counts.buf);
        }
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&tokens), PyBuffer_Release(&out), PyBuffer_Release(&counts);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "tokens are no whole chunks, or do not fit into out");
        return NULL;
    }
    return PyBool_FromLong(good);
}

/* All ways that this processor has, for tests: by number from 0 on; NULL after the last. */
static crc_function crc_way(int number) {
#if defined(__x86_64__)
    const int has_products = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
    if (number == 1 && __builtin_cpu_supports("sse4.2"))
        return crc_by_instruction;
    if (number == 2 && has_products)
        return crc_by_products;
#elif defined(__ARM_FEATURE_CRC32)
    if (number == 1)
        return crc_by_instruction;
#endif
    return number == 0 ? crc_by_table : NULL;
}

PyDoc_STRVAR(crc_doc, "crc32c(data, way) -> int | None\n\n"
                      "The crc32c of bytes; by table (way 0), by one of what else this processor has (1, 2; None if it has\n"
                      "it not), or by the fastest (-1).");

static PyObject *crc32c(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer data;
    int number;
    if (!PyArg_ParseTuple(args, "y*i", &data, &number))
        return NULL;
    const crc_function way = number < 0 ? update : crc_way(number);
    const uint32_t crc = way ? ~way(~0u, data.buf, (size_t)data.len) : 0;
    PyBuffer_Release(&data);
    if (!way)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLong(crc);
}

static PyMethodDef methods[] = {
    {"frame", frame, METH_VARARGS, frame_doc},
    {"crc32c", crc32c, METH_VARARGS, crc_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_frame", "Makes inner chunks of shards; storage/tokens/frame.c", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__frame(void) {
    crc32c_prepare();
    return PyModule_Create(&module);
}
