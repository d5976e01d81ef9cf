"""A file written once from front to end: its digest and the disk are the business of threads, its content the caller's.

On a disk of this machine it goes past the page cache (O_DIRECT), which takes a tenth of the processor's time and leaves
there what others keep in it. Everywhere the disk is told to make it durable from the first MiB on, not only at the end.
"""

import errno
import fcntl
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from .digest import digest_text, new_digest
from .mounts import filesystem_of, is_local
from .shards import Bytes

_BUFFER_BYTES = 2 << 20
_BUFFERS = 8  # so many that the caller goes on while the disk makes durable what it has
_FLUSH_BYTES = 16 << 20
_ALIGNMENT = 4096  # of address, place in the file and length, where the page cache is passed by
_DIRECT = getattr(os, "O_DIRECT", 0)


class StreamedFile:
    """Writes one file, at most seven buffers behind the caller."""

    def __init__(self, path: Path) -> None:
        """Raises OSError if the file cannot be made."""
        self._descriptor, self._direct = _open(path)
        self._digest, self.size = new_digest(), 0
        self._digesting, self._writing, self._flushing = (
            ThreadPoolExecutor(1, thread_name_prefix=f"{what}-shard") for what in ("digest", "write", "flush")
        )
        self._busy: list[tuple[Bytes, list[Future[None]]]] = []
        self._flushed: Future[None] | None = None
        self._unflushed = 0  # bytes
        self._free = _new_buffers()
        self._buffer = self._free.pop()
        self._begun = self._filled = 0  # what is before `begun` is digested already

    def room(self, size: int) -> Bytes:
        """Where the next bytes go, uint8 [`size` or more], at most 1 MiB; good until anything else is called."""
        if self._filled + size > len(self._buffer):
            self._hand_over()
        return self._buffer[self._filled :]

    def wrote(self, size: int) -> None:
        """So many bytes of what room gave are the next of the file."""
        self._filled += size
        self.size += size

    def append(self, data: bytes) -> None:
        """Add bytes, as many as there are. Raises OSError, of what was added before too."""
        left = np.frombuffer(data, np.uint8)
        while len(left):
            room = self.room(1)[: len(left)]
            room[:] = left[: len(room)]
            self.wrote(len(room))
            left = left[len(room) :]

    def finish(self) -> str:
        """Bring all to the disk; the digest. Raises OSError, of what was added before too."""
        self._writing.submit(self._through_cache)  # which takes an end of any length
        self._hand_over(last=True)
        while self._busy:
            self._wait()
        if self._flushed:
            self._flushed.result()
        os.fsync(self._descriptor)
        return digest_text(self._digest)

    def close(self) -> None:
        """Close the file, finished or not."""
        for threads in (self._digesting, self._writing, self._flushing):
            threads.shutdown(cancel_futures=True)
        os.close(self._descriptor)

    def _hand_over(self, last: bool = False) -> None:
        """Have the buffer digested and written, all but what must wait for the next to be aligned; begin another."""
        full, filled = self._buffer, self._filled
        stop = filled if last else filled // _ALIGNMENT * _ALIGNMENT
        digested = self._digesting.submit(self._update, full[self._begun : filled])
        self._busy.append((full, [digested, self._writing.submit(self._write, full[:stop])]))
        self._buffer = self._free.pop() if self._free else self._wait()
        self._begun = self._filled = filled - stop
        self._buffer[: self._filled] = full[stop:filled]

    def _wait(self) -> Bytes:
        """The buffer that is out longest, when all is done with it."""
        buffer, both = self._busy.pop(0)
        for future in both:
            future.result()
        return buffer

    def _update(self, data: Bytes) -> None:
        self._digest.update(data.data)

    def _write(self, data: Bytes) -> None:
        left = data.data
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except OSError as error:
                if error.errno != errno.EINVAL or not self._direct:
                    raise
                self._through_cache()  # a file system that takes the flag, and then no such write
        self._unflushed += len(data)
        if self._unflushed >= _FLUSH_BYTES and (self._flushed is None or self._flushed.done()):
            if self._flushed:
                self._flushed.result()
            self._flushed, self._unflushed = self._flushing.submit(os.fsync, self._descriptor), 0

    def _through_cache(self) -> None:
        if self._direct:
            flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~_DIRECT)
            self._direct = False


def _open(path: Path) -> tuple[int, bool]:
    """An empty file, and whether it is written past the page cache.

    Shared file systems send what is in the page cache to their servers by themselves, much of it at a time; past it
    each buffer would be waited for.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    if _DIRECT and is_local(filesystem_of(path.parent)):
        try:
            return os.open(path, flags | _DIRECT, 0o666), True
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    return os.open(path, flags, 0o666), False


def _new_buffers() -> list[Bytes]:
    """In huge pages, if the system has some: a disk is then told of few places in memory instead of hundreds."""
    memory = mmap.mmap(-1, _BUFFERS * _BUFFER_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return list(np.frombuffer(memory, np.uint8).reshape(_BUFFERS, _BUFFER_BYTES))
