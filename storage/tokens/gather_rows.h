/* Copies runs of tokens out of mapped shards, and tells the system which are read soon. */
#ifndef TRAINWRIGHT_GATHER_ROWS_H
#define TRAINWRIGHT_GATHER_ROWS_H

#include <sys/mman.h>

#include "mapped.h"
#include "widen.h"

struct gather {
    struct mapped store;
    const int64_t *numbers, *rows; /* rows: NULL for 0, 1, 2, ... */
    const int64_t *lengths;        /* NULL: `width` tokens each; else rows are places in out, not rows */
    char *out;
    int64_t count;
    long long step, width, out_itemsize;
};

static int64_t start_of(const struct gather *g, int64_t row) { return g->numbers[row] * g->step; }

static int64_t length_of(const struct gather *g, int64_t row) { return g->lengths ? g->lengths[row] : g->width; }

/* Place in out, in tokens. */
static int64_t place_of(const struct gather *g, int64_t row) {
    return g->lengths ? g->rows[row] : (g->rows ? g->rows[row] : row) * g->width;
}

static void copy_tokens(const struct gather *g, char *to, const uint8_t *from, int64_t count) {
    const int64_t itemsize = g->store.itemsize;
    if (g->out_itemsize == itemsize)
        memcpy(to, from, (size_t)(count * itemsize));
    else if (itemsize == 2 && g->out_itemsize == 8)
        widen_16_64((int64_t *)to, (const uint16_t *)from, (size_t)count);
    else if (itemsize == 4)
        widen_32_64((int64_t *)to, (const uint32_t *)from, (size_t)count);
    else
        widen_16_32((uint32_t *)to, (const uint16_t *)from, (size_t)count);
}

static enum status gather_row(const void *job, struct place *place) {
    const struct gather *g = job;
    const struct mapped *m = &g->store;
    int64_t at = start_of(g, place->row), left = length_of(g, place->row);
    char *to = g->out + place_of(g, place->row) * g->out_itemsize;
    while (left) {
        const int64_t offset = at % m->chunk;
        const int64_t count = left < m->chunk - offset ? left : m->chunk - offset;
        const uint8_t *data;
        const enum status status = touch_chunk(m, at / m->chunk, place, &data);
        if (status != DONE)
            return status;
        copy_tokens(g, to, data + offset * m->itemsize, count);
        to += count * g->out_itemsize;
        at += count;
        left -= count;
    }
    return DONE;
}

/* Tell the system of one row's pages; where a row ends in the next shard, that one's first pages come by themselves. */
static enum status announce_row(const void *job, struct place *place) {
    const struct gather *g = job;
    const struct mapped *m = &g->store;
    const int64_t stride = stride_of(m), start = start_of(g, place->row);
    const int64_t first = start / m->chunk, shard = first / m->chunks_per_shard;
    const int64_t length = length_of(g, place->row);
    int64_t last = (start + length - 1) / m->chunk;
    if (last / m->chunks_per_shard != shard)
        last = (shard + 1) * m->chunks_per_shard - 1;
    if (!m->bases[shard]) {
        place->where = shard;
        return NOT_MAPPED;
    }
    /* All of a chunk that was not checked yet, else the tokens alone. */
    const int64_t offset = start % m->chunk * m->itemsize;
    const int whole = m->check && !(m->checked[first >> 3] & 1u << (first & 7));
    const int64_t size = whole ? (last - first + 1) * stride : (last - first) * stride + length * m->itemsize;
    const uintptr_t page = 4096, base = (uintptr_t)m->bases[shard];
    const uintptr_t from = base + (uintptr_t)(first % m->chunks_per_shard * stride + (whole ? 0 : offset));
    const uintptr_t begin = from / page * page;
    madvise((void *)begin, (size_t)(from + (uintptr_t)size - begin), MADV_WILLNEED); /* a hint: errors do not matter */
    return DONE;
}

static int fits(const struct gather *g, Py_ssize_t num_shards, Py_ssize_t num_bits, Py_ssize_t num_out) {
    const struct mapped *m = &g->store;
    if (g->step < 1 || (m->itemsize != 2 && m->itemsize != 4 && m->itemsize != 8) || !mapped_fits(m, num_shards, num_bits))
        return 0;
    if (g->out_itemsize != m->itemsize && g->out_itemsize != 8 && !(m->itemsize == 2 && g->out_itemsize == 4))
        return 0;
    for (int64_t i = 0; i < g->count; i++) {
        const int64_t length = length_of(g, i);
        if (length < 1 || length > m->length || length > num_out)
            return 0;
        if (g->numbers[i] < 0 || g->numbers[i] > (m->length - length) / g->step)
            return 0;
        if (g->rows && (g->rows[i] < 0 || g->rows[i] > num_out)) /* so that the next line cannot overflow */
            return 0;
        if (place_of(g, i) > num_out - length)
            return 0;
    }
    return 1;
}

#endif
