"""Copies of stores on a node's own disk, from which its ranks read: made once per node, and used again when whole."""

import fcntl
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ...config.data import DataConfig
from ...config.errors import FoundBad, UserError
from ..tokens.locations import Location, check_sizes, file_digest, locate
from ..tokens.shard_files import ShardFiles
from ..tokens.store import METADATA, read_info
from .copying import Contents, contents_of, copy_store

STALL_S = 600.0
"""Seconds for which a copy that another process makes may stand still before who waits for it gives up."""
_SAY_EVERY_S = 30.0
_POLL_S = 0.5
_SMALL_BYTES = 16 << 20
_FIELD = "data.stage_to"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Stager:
    """How stores are staged: into which folder, what is told to whom, and what may stop it."""

    folder: Path
    say: Say
    check_stop: Callable[[], None] = lambda: None
    """Called often; what it raises ends the work."""
    stall_s: float = STALL_S

    def stage(self, source: Location, packings: list[tuple[int, int]]) -> Path:
        """The whole copy of a store on this disk, made now if there is none. Raises UserError naming data.stage_to."""
        contents = contents_of(source, packings)
        target = self.folder / staged_name(source, contents)
        with self._locked(target):
            if target.exists():
                bad = _what_is_bad(target, contents)
                if bad is None:
                    copy_store(source, contents.packings_alone(), target, self._tell(target))
                    self.say(f"{source}: the copy in {target} is whole, and used again")
                    return target
                aside = target.with_name(f"{target.name}.damaged-{time.time_ns()}")
                target.rename(aside)
                self.say(f"{bad}; the copy is set aside as {aside}, and made again")
            self.say(f"{source}: copied to {target} ({contents.size_bytes:,} bytes){self._others(target)}")
            copy_store(source, contents, target, self._tell(target))
        return target

    def _others(self, target: Path) -> str:
        """Other copies that take room here, for whoever wants to remove them."""
        others = sorted(path.name for path in self.folder.iterdir() if path.name != target.name and path.name[0] != ".")
        return f"; {self.folder} also has {', '.join(others)}, which are left" if others else ""

    def _tell(self, target: Path) -> Callable[[str, int, int], None]:
        """Progress that is written where the other ranks of this node look, and shown now and then."""
        lock, last = _lock_file(target), [time.monotonic()]

        def tell(what: str, done: int, total: int) -> None:
            self.check_stop()
            text = f"{what}, {done / 1e9:.2f} of {total / 1e9:.2f} GB"
            lock.write_text(text)
            if time.monotonic() - last[0] > _SAY_EVERY_S:
                last[0] = time.monotonic()
                self.say(f"{target.name}: {text}")

        return tell

    @contextmanager
    def _locked(self, target: Path) -> Iterator[None]:
        """One process of this node at a time; the lock goes with whoever holds it, however that ends."""
        path = _lock_file(target)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        said = time.monotonic()
        try:
            while not _try_lock(handle):
                self.check_stop()
                idle_s = time.time() - path.stat().st_mtime
                if idle_s > self.stall_s:
                    problem = f"another process of this node copies to {target}, but nothing came for {idle_s:.0f} s"
                    raise UserError(_FIELD, problem, "look whether it hangs, or run without data.stage_to")
                if time.monotonic() - said > _SAY_EVERY_S:
                    said = time.monotonic()
                    self.say(f"waiting for another rank of this node: {target.name}: {path.read_text()}")
                time.sleep(_POLL_S)
            os.utime(path)
            yield
        finally:
            os.close(handle)


def stage_stores(data: DataConfig, say: Say, check_stop: Callable[[], None] = lambda: None) -> DataConfig:
    """The data section with the stores' copies on this node's disk in place of the stores.

    Raises UserError naming data.stage_to and the folder if the disk is too small or refuses.
    """
    if data.stage_to is None:
        return data
    folder = stage_folder(data.stage_to)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        stager = Stager(folder, say, check_stop)
        train = []
        for source in data.train:
            copy = stager.stage(locate(source.store), _packings(data, source.store, source.generation))
            train.append(source.model_copy(update={"store": str(copy), "name": source.label}))
    except OSError as error:
        where = error.filename or folder
        remedy = "give a folder with enough room that may be written"
        raise UserError(_FIELD, f"{where}: {error.strerror}", remedy) from None
    return data.model_copy(update={"train": train})


def staged_bytes(data: DataConfig) -> int | None:
    """Bytes that each node's disk must hold; None without staging. Raises UserError and FoundBad as opening does."""
    if data.stage_to is None:
        return None
    stores = [(locate(source.store), source) for source in data.train]
    packings = [_packings(data, source.store, source.generation) for _, source in stores]
    return sum(contents_of(store, each).size_bytes for (store, _), each in zip(stores, packings, strict=True))


def stage_folder(text: str) -> Path:
    """The folder that a run file names, on this node, and in it ours."""
    expanded = os.path.expandvars(text)
    if "$" in expanded:
        problem = f"{text!r} needs a variable that is not set on {os.uname().nodename}"
        raise UserError(_FIELD, problem, "name it in cluster.environment, or give a path")
    if not os.path.isabs(expanded):
        raise UserError(_FIELD, f"{text!r} is {expanded!r} on {os.uname().nodename}", "give an absolute path")
    return Path(expanded, f"trainwright-{os.getuid()}")


def staged_name(source: Location, contents: Contents) -> str:
    """Name of a store's copy: stores of equal names differ, and so do generations of a store."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", source.name).lstrip(".") or "store"
    return f"{plain}-{sha256(contents.metadata).hexdigest()[:16]}"


def set_aside(copy: Path) -> Path:
    """Move a copy away in which a reader found damage, so that the next start makes it anew; where it is now."""
    aside = copy.with_name(f"{copy.name}.damaged-{time.time_ns()}")
    try:
        copy.rename(aside)
    except FileNotFoundError:  # another rank of this node did
        return copy
    return aside


def say_on_stderr(text: str) -> None:
    """A line in this rank's log."""
    print(f"data.stage_to: {text}", file=sys.stderr, flush=True)


def _packings(data: DataConfig, store: str, generation: int | None) -> list[tuple[int, int]]:
    if data.packing != "best_fit":
        return []
    if generation is None:
        generation = read_info(locate(store)).generation
    return [(generation, data.sequence_length)]


def _what_is_bad(copy: Path, contents: Contents) -> FoundBad | None:
    """What is found without reading every token: by zarr.json, all sizes, shards' indices, small files' digests."""
    try:
        files = contents.without_packings().files
        if (copy / METADATA).read_bytes() != contents.metadata:
            raise FoundBad(str(copy / METADATA), "is not the store's", "")
        check_sizes(copy, {name: size for name, (size, _) in files.items()})
        for name, expected in files.items():
            small = expected[0] <= _SMALL_BYTES and not re.fullmatch(r"c/\d+", name)
            if small and file_digest(copy / name) != expected:
                raise FoundBad(str(copy / name), "its digest is not the recorded one", "")
        shards = ShardFiles(copy, contents.info.geometry)
        for shard in range(contents.info.num_shards):
            opened = shards.open_plain if contents.info.compression == "none" else shards.open_indexed
            os.close(opened(shard)[0])
    except FoundBad as error:
        return error
    except OSError as error:
        return FoundBad(str(error.filename or copy), str(error.strerror), "")
    return None


def _lock_file(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
