/* Opens, checks and maps plain shards, many in one call. What is wrong with one is told by shard_files.py, which knows
 * the words for it: here it is only left out.
 */
#ifndef TRAINWRIGHT_MAP_SHARDS_H
#define TRAINWRIGHT_MAP_SHARDS_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mapped.h"

struct shard_map {
    int64_t shard;
    void *address; /* NULL: it could not be mapped, or is not as it should be */
    int64_t size;
};

static int index_is_good(const struct mapped *m, const uint8_t *index, int64_t used) {
    const int64_t bytes = m->chunks_per_shard * 16;
    uint32_t stored;
    memcpy(&stored, index + bytes, CRC_BYTES);
    if (crc32c_of(index, (size_t)bytes) != stored)
        return 0;
    const uint64_t *entries = (const uint64_t *)index, stride = (uint64_t)stride_of(m); /* malloc aligned it */
    uint64_t wrong = 0, offset = 0;
    for (int64_t i = 0; i < used; i++, offset += stride)
        wrong |= (entries[2 * i] ^ offset) | (entries[2 * i + 1] ^ stride);
    for (int64_t i = 2 * used; i < 2 * m->chunks_per_shard; i++)
        wrong |= ~entries[i];
    return wrong == 0;
}

static int read_whole(int descriptor, uint8_t *to, int64_t size, int64_t offset) {
    while (size) {
        const ssize_t done = pread(descriptor, to, (size_t)size, (off_t)offset);
        if (done <= 0)
            return 0;
        to += done, size -= done, offset += done;
    }
    return 1;
}

/* `index` has room for a shard's index; it is looked at unless `known`. */
static struct shard_map map_shard(const struct mapped *m, int64_t shard, const char *path, int known, uint8_t *index) {
    struct shard_map map = {shard, NULL, 0};
    const int64_t num_chunks = (m->length - 1) / m->chunk + 1, left = num_chunks - shard * m->chunks_per_shard;
    const int64_t used = left < m->chunks_per_shard ? left : m->chunks_per_shard;
    const int64_t index_bytes = m->chunks_per_shard * 16 + CRC_BYTES, before = used * stride_of(m);
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return map;
    struct stat stat;
    if (fstat(descriptor, &stat) == 0 && stat.st_size == before + index_bytes &&
        (known || (read_whole(descriptor, index, index_bytes, before) && index_is_good(m, index, used)))) {
        map.address = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_SHARED, descriptor, 0);
        map.address = map.address == MAP_FAILED ? NULL : map.address;
        map.size = stat.st_size;
    }
    close(descriptor);
    return map;
}

/* Maps those of `count` shards that are not mapped, at most `room`, until one cannot be; says how many, of `maps`. */
static int64_t map_shards(struct mapped *m, uint64_t *bases, const char *folder, uint8_t *known, const int64_t *shards,
                          int64_t count, int64_t room, struct shard_map *maps) {
    const size_t length = strlen(folder) + 32;
    char *path = malloc(length);
    uint8_t *index = malloc((size_t)m->chunks_per_shard * 16 + CRC_BYTES);
    int64_t done = 0;
    for (int64_t i = 0; path && index && i < count && done < room; i++) {
        if (bases[shards[i]])
            continue;
        snprintf(path, length, "%s/%lld", folder, (long long)shards[i]);
        maps[done] = map_shard(m, shards[i], path, known[shards[i]], index);
        if (!maps[done].address)
            break;
        known[shards[i]] = 1;
        bases[shards[i]] = (uint64_t)(uintptr_t)maps[done++].address;
    }
    free(path), free(index);
    return done;
}

#endif
