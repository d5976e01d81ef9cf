/* A plain Zarr array in mapped shards: chunk after chunk, each of `chunk` little-endian items and their crc32c.
 *
 * A chunk's crc32c is checked when it is first touched. A page that cannot be read is told like any other damage
 * (page_faults.h).
 */
#ifndef TRAINWRIGHT_MAPPED_H
#define TRAINWRIGHT_MAPPED_H

#include <stdint.h>
#include <string.h>

#include "crc32c.h"
#include "page_faults.h"

enum { CRC_BYTES = 4 };
/* What is told of each call; storage/tokens/shard_map.py has the same numbers. */
enum status { DONE = 0, NOT_MAPPED = 1, BAD_CRC = 2, UNREADABLE = 3 };

struct mapped {
    const uint64_t *bases; /* address of each shard, 0 while it is not mapped */
    uint8_t *checked;      /* a bit for each inner chunk */
    long long length, itemsize, chunk, chunks_per_shard;
    int check;
};

struct place { /* where a call stands; volatile, as it is read after a fault */
    volatile int64_t row, where;
};

static int mapped_fits(const struct mapped *m, Py_ssize_t num_shards, Py_ssize_t num_bits) {
    if (m->length < 1 || m->itemsize < 1 || m->chunk < 1 || m->chunks_per_shard < 1)
        return 0;
    const int64_t last = (m->length - 1) / m->chunk;
    return last < num_bits && last / m->chunks_per_shard < num_shards;
}

static int64_t stride_of(const struct mapped *m) { return m->chunk * m->itemsize + CRC_BYTES; }

/* A chunk's first byte, to `data`. If that is not DONE, `where` is the shard that is not mapped, or the bad chunk. */
static inline enum status touch_chunk(const struct mapped *m, int64_t chunk, struct place *place, const uint8_t **data) {
    const int64_t shard = chunk / m->chunks_per_shard, bytes = m->chunk * m->itemsize;
    if (!m->bases[shard]) {
        place->where = shard;
        return NOT_MAPPED;
    }
    const uint8_t *at = (const uint8_t *)(uintptr_t)m->bases[shard];
    *data = at += chunk % m->chunks_per_shard * stride_of(m);
    const uint8_t bit = (uint8_t)(1u << (chunk & 7));
    place->where = chunk;
    if (m->check && !(__atomic_load_n(&m->checked[chunk >> 3], __ATOMIC_RELAXED) & bit)) {
        uint32_t stored;
        memcpy(&stored, at + bytes, CRC_BYTES);
        if (crc32c_of(at, (size_t)bytes) != stored)
            return BAD_CRC;
        __atomic_fetch_or(&m->checked[chunk >> 3], bit, __ATOMIC_RELAXED);
    }
    return DONE;
}

typedef enum status (*row_function)(const void *job, struct place *);

/* Calls a function that reads maps for rows place->row..count-1, until it is not DONE. */
static enum status for_rows(row_function function, const void *job, int64_t count, struct place *place) {
    sigjmp_buf here;
    volatile enum status status = DONE;
    begin_reading();
    if (sigsetjmp(here, 0) == 0) {
        fault_return = &here;
        for (; place->row < count; place->row = place->row + 1) {
            status = function(job, place);
            if (status != DONE)
                break;
        }
    } else
        status = UNREADABLE;
    end_reading();
    return status;
}

#endif
