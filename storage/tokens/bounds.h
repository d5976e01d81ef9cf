/* Looks for values in a mapped array of ascending uint64, such as the index of documents. */
#ifndef TRAINWRIGHT_BOUNDS_H
#define TRAINWRIGHT_BOUNDS_H

#include "mapped.h"

struct bounds {
    struct mapped array;
    const int64_t *values;
    int64_t *out;
    int64_t count;
    long long ceiling; /* above all values of the array */
};

static int64_t value_at(const uint8_t *data, int64_t place) {
    int64_t value; /* a chunk is not aligned */
    memcpy(&value, data + place * 8, sizeof value);
    return value;
}

static int64_t items_of(const struct mapped *m, int64_t chunk) {
    const int64_t left = m->length - chunk * m->chunk;
    return left < m->chunk ? left : m->chunk;
}

/* The last chunk that begins below a value, or the first: it is looked for where it would be if values were evenly
 * spread, two times of three; by halves the third. */
static enum status find_chunk(const struct bounds *b, int64_t value, struct place *place, int64_t *chunk) {
    int64_t low = 0, high = (b->array.length - 1) / b->array.chunk + 1;
    int64_t floor = 0, ceiling = b->ceiling; /* first items of chunks low, or one of its others, and high */
    for (int turn = 0; high - low > 1; turn++) {
        const double share = (double)(value - floor) / (double)(ceiling - floor);
        int64_t step = turn % 3 == 2 || !(share >= 0 && share <= 1) ? (high - low) / 2 : (int64_t)(share * (double)(high - low));
        step = step < 1 ? 1 : step > high - low - 1 ? high - low - 1 : step;
        const uint8_t *data;
        const enum status status = touch_chunk(&b->array, low + step, place, &data);
        if (status != DONE)
            return status;
        if (value_at(data, 0) >= value) {
            high = low + step, ceiling = value_at(data, 0);
            continue;
        }
        low += step, floor = value_at(data, items_of(&b->array, low) - 1);
        if (floor >= value)
            break;
    }
    *chunk = low;
    return DONE;
}

/* Number of the first item that is not below a value. */
static enum status bound_row(const void *job, struct place *place) {
    const struct bounds *b = job;
    const int64_t value = b->values[place->row];
    int64_t chunk;
    const uint8_t *data;
    enum status status = find_chunk(b, value, place, &chunk);
    if (status == DONE)
        status = touch_chunk(&b->array, chunk, place, &data);
    if (status != DONE)
        return status;
    int64_t low = 0, high = items_of(&b->array, chunk);
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (value_at(data, middle) < value)
            low = middle + 1;
        else
            high = middle;
    }
    b->out[place->row] = chunk * b->array.chunk + low;
    return DONE;
}

#endif
