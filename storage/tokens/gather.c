/* Gathers samples out of mapped shards of a token store: checked, widened, in one call, without the interpreter's lock.
 *
 * A shard of a plain store is chunk after chunk, each of `chunk_tokens` little-endian tokens and their crc32c. A chunk's
 * crc32c is checked when it is first touched. A page that cannot be read is told like any other damage (page_faults.h).
 *
 * Built for the stable ABI, so that one wheel serves every Python from 3.11 on.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "crc32c.h"
#include "page_faults.h"
#include "widen.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tokens are little endian; on this machine trainwright reads them with NumPy"
#endif

enum { CRC_BYTES = 4 };
/* What gather tells; storage/tokens/shard_map.py has the same numbers. */
enum status { DONE = 0, NOT_MAPPED = 1, BAD_CRC = 2, UNREADABLE = 3 };

struct gather {
    const uint64_t *bases; /* address of each shard, 0 while it is not mapped */
    uint8_t *checked;      /* a bit for each inner chunk of the store */
    const int64_t *numbers, *rows; /* rows: NULL for 0, 1, 2, ... */
    const int64_t *lengths;        /* NULL: `width` tokens each; else rows are places in out, not rows */
    char *out;
    int64_t count;
    long long step, width, out_itemsize, num_tokens, itemsize, chunk_tokens, chunks_per_shard;
    int check;
};

struct place { /* where gather stands; volatile, as it is read after a fault */
    volatile int64_t row, where;
};

static int64_t start_of(const struct gather *g, int64_t row) { return g->numbers[row] * g->step; }

static int64_t length_of(const struct gather *g, int64_t row) { return g->lengths ? g->lengths[row] : g->width; }

/* Place in out, in tokens. */
static int64_t place_of(const struct gather *g, int64_t row) {
    return g->lengths ? g->rows[row] : (g->rows ? g->rows[row] : row) * g->width;
}

static void copy_tokens(const struct gather *g, char *to, const uint8_t *from, int64_t count) {
    if (g->out_itemsize == g->itemsize)
        memcpy(to, from, (size_t)(count * g->itemsize));
    else if (g->itemsize == 2 && g->out_itemsize == 8)
        widen_16_64((int64_t *)to, (const uint16_t *)from, (size_t)count);
    else if (g->itemsize == 4)
        widen_32_64((int64_t *)to, (const uint32_t *)from, (size_t)count);
    else
        widen_16_32((uint32_t *)to, (const uint16_t *)from, (size_t)count);
}

static enum status gather_row(const struct gather *g, struct place *place) {
    int64_t at = start_of(g, place->row), left = length_of(g, place->row);
    char *to = g->out + place_of(g, place->row) * g->out_itemsize;
    const int64_t bytes = g->chunk_tokens * g->itemsize;
    while (left) {
        const int64_t chunk = at / g->chunk_tokens, offset = at % g->chunk_tokens;
        const int64_t shard = chunk / g->chunks_per_shard;
        const int64_t count = left < g->chunk_tokens - offset ? left : g->chunk_tokens - offset;
        if (!g->bases[shard]) {
            place->where = shard;
            return NOT_MAPPED;
        }
        const uint8_t *data = (const uint8_t *)(uintptr_t)g->bases[shard];
        data += chunk % g->chunks_per_shard * (bytes + CRC_BYTES);
        const uint8_t bit = (uint8_t)(1u << (chunk & 7));
        place->where = chunk;
        if (g->check && !(__atomic_load_n(&g->checked[chunk >> 3], __ATOMIC_RELAXED) & bit)) {
            uint32_t stored;
            memcpy(&stored, data + bytes, CRC_BYTES);
            if (crc32c_of(data, (size_t)bytes) != stored)
                return BAD_CRC;
            __atomic_fetch_or(&g->checked[chunk >> 3], bit, __ATOMIC_RELAXED);
        }
        copy_tokens(g, to, data + offset * g->itemsize, count);
        to += count * g->out_itemsize;
        at += count;
        left -= count;
    }
    return DONE;
}

/* Tell the system of one row's pages; where a row ends in the next shard, that one's first pages come by themselves. */
static enum status announce_row(const struct gather *g, struct place *place) {
    const int64_t stride = g->chunk_tokens * g->itemsize + CRC_BYTES;
    const int64_t start = start_of(g, place->row);
    const int64_t first = start / g->chunk_tokens, shard = first / g->chunks_per_shard;
    const int64_t length = length_of(g, place->row);
    int64_t last = (start + length - 1) / g->chunk_tokens;
    if (last / g->chunks_per_shard != shard)
        last = (shard + 1) * g->chunks_per_shard - 1;
    if (!g->bases[shard]) {
        place->where = shard;
        return NOT_MAPPED;
    }
    /* All of a chunk that was not checked yet, else the tokens alone. */
    const int64_t offset = start % g->chunk_tokens * g->itemsize;
    const int whole = g->check && !(g->checked[first >> 3] & 1u << (first & 7));
    const int64_t size = whole ? (last - first + 1) * stride : (last - first) * stride + length * g->itemsize;
    const uintptr_t page = 4096, base = (uintptr_t)g->bases[shard];
    const uintptr_t from = base + (uintptr_t)(first % g->chunks_per_shard * stride + (whole ? 0 : offset));
    const uintptr_t begin = from / page * page;
    madvise((void *)begin, (size_t)(from + (uintptr_t)size - begin), MADV_WILLNEED); /* a hint: errors do not matter */
    return DONE;
}

typedef enum status (*row_function)(const struct gather *, struct place *);

static enum status for_rows(row_function function, const struct gather *g, struct place *place) {
    sigjmp_buf here;
    volatile enum status status = DONE;
    begin_reading();
    if (sigsetjmp(here, 0) == 0) {
        fault_return = &here;
        for (; place->row < g->count; place->row = place->row + 1) {
            status = function(g, place);
            if (status != DONE)
                break;
        }
    } else
        status = UNREADABLE;
    end_reading();
    return status;
}

static int fits(const struct gather *g, Py_ssize_t num_shards, Py_ssize_t num_bits, Py_ssize_t num_out) {
    if (g->step < 1 || g->chunk_tokens < 1 || g->chunks_per_shard < 1 || (g->itemsize != 2 && g->itemsize != 4))
        return 0;
    if (g->out_itemsize != g->itemsize && g->out_itemsize != 8 && !(g->itemsize == 2 && g->out_itemsize == 4))
        return 0;
    const int64_t last_chunk = (g->num_tokens - 1) / g->chunk_tokens;
    if (last_chunk >= num_bits || last_chunk / g->chunks_per_shard >= num_shards)
        return 0;
    for (int64_t i = 0; i < g->count; i++) {
        const int64_t length = length_of(g, i);
        if (length < 1 || length > g->num_tokens || length > num_out)
            return 0;
        if (g->numbers[i] < 0 || g->numbers[i] > (g->num_tokens - length) / g->step)
            return 0;
        if (g->rows && (g->rows[i] < 0 || g->rows[i] > num_out)) /* so that the next line cannot overflow */
            return 0;
        if (place_of(g, i) > num_out - length)
            return 0;
    }
    return 1;
}

static PyObject *run(row_function function, PyObject *args) {
    Py_buffer bases, checked, numbers, lengths, rows, out;
    struct gather g;
    long long first;
    if (!PyArg_ParseTuple(args, "y*w*y*z*z*w*(LLL)(LLLLp)L", &bases, &checked, &numbers, &lengths, &rows, &out,
                          &g.step, &g.width, &g.out_itemsize, &g.num_tokens, &g.itemsize, &g.chunk_tokens, &g.chunks_per_shard, &g.check,
                          &first))
        return NULL;
    g.bases = bases.buf, g.checked = checked.buf, g.numbers = numbers.buf;
    g.lengths = lengths.buf, g.rows = rows.buf, g.out = out.buf;
    g.count = numbers.len / 8;
    struct place place = {.row = first, .where = 0};
    enum status status = DONE;
    const int good = g.width > 0 && g.out_itemsize > 0 && first >= 0 && (!rows.buf || rows.len == numbers.len) &&
                     (!lengths.buf || (rows.buf && lengths.len == numbers.len)) &&
                     fits(&g, bases.len / 8, checked.len * 8, out.len / g.out_itemsize);
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        status = for_rows(function, &g, &place);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&bases), PyBuffer_Release(&checked), PyBuffer_Release(&numbers), PyBuffer_Release(&lengths);
    PyBuffer_Release(&rows), PyBuffer_Release(&out);
    if (!good) {
        PyErr_SetString(PyExc_ValueError, "a sample is not within the store, or arrays do not fit each other");
        return NULL;
    }
    return Py_BuildValue("iLL", (int)status, (long long)place.row, (long long)place.where);
}

PyDoc_STRVAR(gather_doc,
             "gather(bases, checked, numbers, lengths, rows, out, sizes, store, first) -> (status, row, where)\n\n"
             "Copy `width` tokens from numbers[i]*step on to row rows[i] of out (i if rows is None), for i from `first` on;\n"
             "with lengths, copy lengths[i] tokens to place rows[i] of the flat out.\n"
             "bases uint64 [shards], checked uint8 [bits / 8], numbers, lengths, rows int64 [n], out [rows, width], contiguous;\n"
             "sizes (step, width, bytes of an output item); store (tokens, bytes of a token, tokens of a chunk, chunks of a\n"
             "shard, whether to check). status 0: done; 1: shard `where` is not mapped; 2: chunk `where` of the store fails\n"
             "its crc32c; 3: it cannot be read. Raises ValueError for what does not fit.");

static PyObject *gather(PyObject *self, PyObject *args) {
    (void)self;
    return run(gather_row, args);
}

PyDoc_STRVAR(announce_doc, "announce(...) -> (status, row, where)\n\nAs gather, but only tell the system what is read soon.");

static PyObject *announce(PyObject *self, PyObject *args) {
    (void)self;
    return run(announce_row, args);
}

PyDoc_STRVAR(map_doc, "map_file(descriptor, size) -> address\n\nMap a file for reading; needs no open file afterwards.");

static PyObject *map_file(PyObject *self, PyObject *args) {
    (void)self;
    int descriptor;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "in", &descriptor, &size))
        return NULL;
    void *address = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, descriptor, 0);
    if (address == MAP_FAILED)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromUnsignedLongLong((unsigned long long)(uintptr_t)address);
}

PyDoc_STRVAR(unmap_doc, "unmap(address, size)\n\nUndo map_file.");

static PyObject *unmap(PyObject *self, PyObject *args) {
    (void)self;
    unsigned long long address;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "Kn", &address, &size))
        return NULL;
    if (munmap((void *)(uintptr_t)address, (size_t)size))
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"gather", gather, METH_VARARGS, gather_doc},       {"map_file", map_file, METH_VARARGS, map_doc},
    {"unmap", unmap, METH_VARARGS, unmap_doc},          {"announce", announce, METH_VARARGS, announce_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_gather", "Gathers samples out of mapped shards", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__gather(void) {
    crc32c_prepare();
    return PyModule_Create(&module);
}
