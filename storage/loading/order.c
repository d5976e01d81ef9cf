/* The data order of order.py, value for value, without the cost of NumPy's calls: docs/data-order.md has it in words. */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

enum { ROUNDS = 8, BLOCK_LEVEL = 1, SAMPLE_LEVEL = 2 };

struct grid {
    uint64_t size, rows, columns;
};

struct order {
    uint64_t num_samples, block, span, num_blocks;
    struct grid windows[2], blocks; /* the whole windows, and the last one, which may be shorter */
};

static uint64_t mix(uint64_t word) {
    word = (word ^ (word >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    word = (word ^ (word >> 27)) * UINT64_C(0x94D049BB133111EB);
    return word ^ (word >> 31);
}

static uint64_t absorb(uint64_t key, uint64_t word) { return mix(key ^ mix(word + UINT64_C(0x9E3779B97F4A7C15))); }

/* rows: the square root of size, rounded up; columns: size / rows, rounded up. */
static struct grid grid_of(uint64_t size) {
    uint64_t low = 1, high = UINT64_C(1) << 32;
    while (low < high) {
        const uint64_t middle = low + (high - low) / 2;
        if (middle * middle >= size)
            high = middle;
        else
            low = middle + 1;
    }
    return (struct grid){size, low, (size + low - 1) / low};
}

static uint64_t permute(uint64_t value, const struct grid *grid, uint64_t key) {
    uint64_t keys[ROUNDS];
    for (int turn = 0; turn < ROUNDS; turn++)
        keys[turn] = absorb(key, (uint64_t)turn);
    do {
        uint64_t row = value / grid->columns, column = value % grid->columns;
        for (int turn = 0; turn < ROUNDS; turn += 2) {
            row = (row + mix(column ^ keys[turn]) % grid->rows) % grid->rows;
            column = (column + mix(row ^ keys[turn + 1]) % grid->columns) % grid->columns;
        }
        value = row * grid->columns + column;
    } while (value >= grid->size);
    return value;
}

static uint64_t sample_at(const struct order *order, uint64_t key, uint64_t position) {
    const uint64_t total = order->num_blocks * order->block;
    uint64_t place = position % order->num_samples;
    key = absorb(key, position / order->num_samples);
    const uint64_t sample_key = absorb(key, SAMPLE_LEVEL), block_key = absorb(key, BLOCK_LEVEL);
    do {
        const uint64_t window = place / order->span, first = window * order->span;
        const struct grid *grid = &order->windows[total - first < order->span];
        const uint64_t inside = first + permute(place - first, grid, absorb(sample_key, window));
        place = permute(inside / order->block, &order->blocks, block_key) * order->block + inside % order->block;
    } while (place >= order->num_samples);
    return place;
}

PyDoc_STRVAR(samples_doc,
             "samples(key, num_samples, block, span, num_blocks, positions, out)\n\n"
             "Write the sample at each of positions (int64) to out (int64, as long). Raises ValueError for sizes that do not\n"
             "fit each other, or a position below 0.");

static PyObject *samples(PyObject *self, PyObject *args) {
    (void)self;
    struct order order;
    unsigned long long key, num_samples, block, span, num_blocks;
    Py_buffer positions, out;
    if (!PyArg_ParseTuple(args, "KKKKKy*w*", &key, &num_samples, &block, &span, &num_blocks, &positions, &out))
        return NULL;
    const Py_ssize_t count = positions.len / 8;
    const int64_t *from = positions.buf;
    int64_t *to = out.buf;
    const int good = out.len == positions.len && num_samples && block && span && num_blocks * block >= num_samples;
    int64_t lowest = 0;
    for (Py_ssize_t i = 0; i < count; i++)
        lowest = from[i] < lowest ? from[i] : lowest;
    if (good && lowest == 0) {
        const uint64_t total = num_blocks * block, rest = total % span;
        order = (struct order){num_samples, block, span, num_blocks, {grid_of(span), grid_of(rest ? rest : span)},
                               grid_of(num_blocks)};
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < count; i++)
            to[i] = (int64_t)sample_at(&order, key, (uint64_t)from[i]);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&positions), PyBuffer_Release(&out);
    if (!good) {
        PyErr_SetString(PyExc_ValueError, "samples: sizes do not fit each other");
        return NULL;
    }
    if (lowest < 0)
        return PyErr_Format(PyExc_ValueError, "position %lld is below 0", (long long)lowest);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"samples", samples, METH_VARARGS, samples_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_order", "The data order; storage/loading/order.c", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__order(void) { return PyModule_Create(&module); }
