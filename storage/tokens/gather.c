/* Gathers samples out of mapped shards of a token store: checked, widened, in one call, without the interpreter's lock.
 *
 * Built for the stable ABI, so that one wheel serves every Python from 3.11 on.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "bounds.h"
#include "gather_rows.h"
#include "map_shards.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tokens are little endian; on this machine trainwright reads them with NumPy"
#endif

/* Pages so far that this thread waited for a disk for. */
static long faults(void) {
#ifdef RUSAGE_THREAD
    struct rusage usage;
    return getrusage(RUSAGE_THREAD, &usage) ? 0 : usage.ru_majflt;
#else
    static long count; /* not known: as if it were one each time */
    return count++;
#endif
}

static PyObject *run(row_function function, PyObject *args) {
    Py_buffer bases, checked, numbers, lengths, rows, out;
    struct gather g;
    struct mapped *m = &g.store;
    long long first;
    if (!PyArg_ParseTuple(args, "y*w*y*z*z*w*(LLL)(LLLLp)L", &bases, &checked, &numbers, &lengths, &rows, &out,
                          &g.step, &g.width, &g.out_itemsize, &m->length, &m->itemsize, &m->chunk, &m->chunks_per_shard, &m->check,
                          &first))
        return NULL;
    m->bases = bases.buf, m->checked = checked.buf, g.numbers = numbers.buf;
    g.lengths = lengths.buf, g.rows = rows.buf, g.out = out.buf;
    g.count = numbers.len / 8;
    struct place place = {.row = first, .where = 0};
    enum status status = DONE;
    long waited = 0;
    const int good = g.width > 0 && g.out_itemsize > 0 && first >= 0 && (!rows.buf || rows.len == numbers.len) &&
                     (!lengths.buf || (rows.buf && lengths.len == numbers.len)) &&
                     fits(&g, bases.len / 8, checked.len * 8, out.len / g.out_itemsize);
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        waited = faults();
        status = for_rows(function, &g, g.count, &place);
        waited = faults() - waited;
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&bases), PyBuffer_Release(&checked), PyBuffer_Release(&numbers), PyBuffer_Release(&lengths);
    PyBuffer_Release(&rows), PyBuffer_Release(&out);
    if (!good) {
        PyErr_SetString(PyExc_ValueError, "a sample is not within the store, or arrays do not fit each other");
        return NULL;
    }
    return Py_BuildValue("iLLl", (int)status, (long long)place.row, (long long)place.where, waited);
}

PyDoc_STRVAR(gather_doc,
             "gather(bases, checked, numbers, lengths, rows, out, sizes, store, first) -> (status, row, where, faults)\n\n"
             "Copy `width` tokens from numbers[i]*step on to row rows[i] of out (i if rows is None), for i from `first` on;\n"
             "with lengths, copy lengths[i] tokens to place rows[i] of the flat out.\n"
             "bases uint64 [shards], checked uint8 [bits / 8], numbers, lengths, rows int64 [n], out [rows, width], contiguous;\n"
             "sizes (step, width, bytes of an output item); store (tokens, bytes of a token, tokens of a chunk, chunks of a\n"
             "shard, whether to check). status 0: done; 1: shard `where` is not mapped; 2: chunk `where` of the store fails\n"
             "its crc32c; 3: it cannot be read. faults: pages that had to be waited for. Raises ValueError for what does not fit.");

static PyObject *gather(PyObject *self, PyObject *args) {
    (void)self;
    return run(gather_row, args);
}

PyDoc_STRVAR(announce_doc, "announce(...) -> (status, row, where, faults)\n\nAs gather, but only tell the system what is read soon.");

static PyObject *announce(PyObject *self, PyObject *args) {
    (void)self;
    return run(announce_row, args);
}

PyDoc_STRVAR(bounds_doc,
             "bounds(bases, checked, values, out, ceiling, array, first) -> (status, row, where)\n\n"
             "Number of the first item that is not below values[i] to out[i], for i from `first` on; as gather else.\n"
             "values, out int64 [n]; ceiling is above all items, which are uint64 and ascend; array as store of gather.");

static PyObject *bounds(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer bases, checked, values, out;
    struct bounds b;
    struct mapped *m = &b.array;
    long long first;
    if (!PyArg_ParseTuple(args, "y*w*y*w*L(LLLLp)L", &bases, &checked, &values, &out, &b.ceiling, &m->length, &m->itemsize,
                          &m->chunk, &m->chunks_per_shard, &m->check, &first))
        return NULL;
    m->bases = bases.buf, m->checked = checked.buf, b.values = values.buf, b.out = out.buf, b.count = values.len / 8;
    struct place place = {.row = first, .where = 0};
    enum status status = DONE;
    const int good = first >= 0 && out.len == values.len && m->itemsize == 8 && mapped_fits(m, bases.len / 8, checked.len * 8);
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        status = for_rows(bound_row, &b, b.count, &place);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&bases), PyBuffer_Release(&checked), PyBuffer_Release(&values), PyBuffer_Release(&out);
    if (!good) {
        PyErr_SetString(PyExc_ValueError, "bounds: arrays do not fit each other");
        return NULL;
    }
    return Py_BuildValue("iLL", (int)status, (long long)place.row, (long long)place.where);
}

PyDoc_STRVAR(map_shards_doc,
             "map_shards(bases, known, shards, store, folder, room) -> [(shard, address, size)]\n\n"
             "Open, check and map those of `shards` (int64) that are not in bases, at most `room`, until one is not as it\n"
             "should be. known uint8 [shards]: whose index was checked. store as of gather; folder as bytes.");

static PyObject *map_many(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer bases, known, shards;
    struct mapped m;
    const char *folder;
    long long room;
    if (!PyArg_ParseTuple(args, "w*w*y*(LLLLp)yL", &bases, &known, &shards, &m.length, &m.itemsize, &m.chunk,
                          &m.chunks_per_shard, &m.check, &folder, &room))
        return NULL;
    const int64_t count = shards.len / 8, *numbers = shards.buf;
    int good = mapped_fits(&m, bases.len / 8, PY_SSIZE_T_MAX) && known.len == bases.len / 8;
    for (int64_t i = 0; good && i < count; i++)
        good = numbers[i] >= 0 && numbers[i] < known.len;
    struct shard_map *maps = good ? calloc((size_t)count + 1, sizeof *maps) : NULL;
    int64_t done = 0;
    if (maps) {
        Py_BEGIN_ALLOW_THREADS
        done = map_shards(&m, bases.buf, folder, known.buf, numbers, count, room, maps);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&bases), PyBuffer_Release(&known), PyBuffer_Release(&shards);
    if (!good)
        return PyErr_Format(PyExc_ValueError, "map_shards: arrays do not fit each other");
    PyObject *list = PyList_New(0);
    for (int64_t i = 0; list && i < done; i++) {
        PyObject *each = Py_BuildValue("(LKL)", (long long)maps[i].shard, (unsigned long long)(uintptr_t)maps[i].address,
                                       (long long)maps[i].size);
        if (!each || PyList_Append(list, each))
            Py_CLEAR(list);
        Py_XDECREF(each);
    }
    free(maps);
    return list;
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
    {"bounds", bounds, METH_VARARGS, bounds_doc},       {"map_shards", map_many, METH_VARARGS, map_shards_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_gather", "Gathers samples out of mapped shards", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__gather(void) {
    crc32c_prepare();
    return PyModule_Create(&module);
}
