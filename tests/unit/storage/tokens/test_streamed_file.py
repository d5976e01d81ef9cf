"""A file written past the page cache or through it holds what it was given; what the disk refuses is raised."""

import errno
import fcntl
import os
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from trainwright.storage.tokens import streamed_file
from trainwright.storage.tokens.digest import digest_of
from trainwright.storage.tokens.locations import file_digest
from trainwright.storage.tokens.mounts import filesystem_of
from trainwright.storage.tokens.streamed_file import StreamedFile

WAYS = ("as the file system likes it", "shared file system", "flag refused", "direct writes refused")


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_file, "_BUFFER_BYTES", 1 << 15)
    monkeypatch.setattr(streamed_file, "_FLUSH_BYTES", 1 << 17)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One of the ways in which a file system takes what is written past the page cache."""
    really_open, really_write = os.open, os.write

    def refusing_open(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return really_open(path, flags, mode)

    def refusing_write(descriptor: int, data: Any) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return really_write(descriptor, data)

    if request.param == "shared file system":
        monkeypatch.setattr(streamed_file, "filesystem_of", lambda path: "lustre")
    elif request.param == "flag refused":
        monkeypatch.setattr(os, "open", refusing_open)
    elif request.param == "direct writes refused":
        monkeypatch.setattr(os, "write", refusing_write)
    return str(request.param)


def is_direct(file: StreamedFile) -> bool:
    return bool(fcntl.fcntl(file._descriptor, fcntl.F_GETFL) & os.O_DIRECT)


@pytest.fixture(params=["tmp_path", "/dev/shm"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file on a disk, and one in memory."""
    path = tmp_path / "file" if request.param == "tmp_path" else Path(f"/dev/shm/trainwright-test-{os.getpid()}")
    yield path
    path.unlink(missing_ok=True)


def test_a_file_holds_what_it_was_given(path: Path, way: str, rng: random.Random) -> None:
    draw = np.random.default_rng(rng.randrange(1 << 32))
    for length in (0, 1, 4096, 1 << 15, (1 << 15) + 1, rng.randrange(1 << 21)):
        data = draw.integers(0, 256, length, np.uint8)
        file, done = StreamedFile(path), 0
        if way in WAYS[1:3]:
            assert not is_direct(file)
        elif filesystem_of(path.parent).startswith(("ext", "xfs")):
            assert is_direct(file)
        while done < length:
            size = min(length - done, rng.choice([1, 4096, rng.randrange(1, 1 << 14)]))
            if rng.random() < 0.5:
                file.room(size)[:size] = data[done : done + size]
                file.wrote(size)
            else:
                size = min(length - done, rng.randrange(1, 1 << 18))
                file.append(data[done : done + size].tobytes())
            done += size
        digest = file.finish()
        file.close()
        assert path.read_bytes() == data.tobytes()
        assert (file.size, digest) == (length, f"blake3:{blake3(data.tobytes()).hexdigest()}") == file_digest(path)


def append_and_finish(file: StreamedFile, times: int) -> None:
    for _ in range(times):
        file.append(bytes(1 << 14))
    file.finish()


@pytest.mark.parametrize("refused", ["write", "fsync"])
def test_what_the_disk_refuses_is_raised(
    tmp_path: Path, refused: str, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, good = getattr(os, refused), rng.randrange(3)

    def refuse(*args: Any) -> Any:
        nonlocal good
        good -= 1
        if good < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(*args)

    monkeypatch.setattr(os, refused, refuse)
    file = StreamedFile(tmp_path / "file")
    with closing(file), pytest.raises(OSError, match="No space left"):
        append_and_finish(file, 100)


def test_the_digest_is_blake3() -> None:
    empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"  # of its authors' test vectors
    assert digest_of(b"") == f"blake3:{empty}"
