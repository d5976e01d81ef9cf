"""A part's file: its tokens in checked blocks, then the lengths, content hashes and signatures of its documents.

The summary beside it holds the places and crc32c of all of these; it is written last, so that a part is whole or not.
"""

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from .minhash import MinHasher
from .workspace import Workspace, beside, plan_digest, publish, read_record, write_record

BLOCK_TOKENS = 1 << 19
HASH = np.dtype([("high", "<u8"), ("low", "<u8")])
_SECTIONS = {
    "lengths": np.dtype("<u8"),
    "hashes": HASH,
    "bands": np.dtype("<u8"),
    "signatures": np.dtype("<u4"),
    "trained": np.dtype("u1"),
}


class PartDamaged(Exception):
    """A part's file is missing, cut or changed, and must be made again."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"part {number}")


class PartWriter:
    """Writes one part beside its place; documents are added piece by piece."""

    def __init__(
        self,
        space: Workspace,
        number: int,
        dtype: np.dtype[Any],
        hasher: MinHasher | None,
        *,
        keep_tokens: bool = True,
    ) -> None:
        """Without keep_tokens only lengths, hashes and signatures are written."""
        self._keep_tokens = keep_tokens
        self._space, self._number, self._dtype, self._hasher = space, number, dtype.newbyteorder("<"), hasher
        self._plan = plan_digest(space)
        self._place = beside(space.part(number))
        self._file = self._place.open("wb")
        self._waiting: list[NDArray[Any]] = []
        self._num_waiting = self._num_tokens = self._length = 0
        self._crcs: list[int] = []
        self._digest = hashlib.blake2b(digest_size=16)
        self._document: list[NDArray[Any]] = []
        self._columns: dict[str, list[Any]] = {name: [] for name in _SECTIONS}

    def add(self, tokens: NDArray[Any], trained: NDArray[np.uint8] | None = None) -> None:
        """Add consecutive tokens (1-D) of the current document, and of each 1 if it is trained, else 0.

        None means 1 for all, of all of the part.
        """
        if trained is not None:
            self._columns["trained"].append(trained)
        self._digest.update(tokens.astype("<u4").tobytes())
        if self._hasher is not None:
            self._document.append(tokens)
        self._length += len(tokens)
        if not self._keep_tokens:
            return
        self._waiting.append(tokens)
        self._num_waiting += len(tokens)
        if self._num_waiting >= BLOCK_TOKENS:
            self._write_blocks(self._num_waiting // BLOCK_TOKENS * BLOCK_TOKENS)

    def end_document(self) -> None:
        """The current document is whole."""
        self._columns["lengths"].append(self._length)
        self._columns["hashes"].append(self._digest.digest())
        self._length, self._digest = 0, hashlib.blake2b(digest_size=16)
        if self._hasher is not None:
            signature = self._hasher.signature(np.concatenate(self._document))
            self._columns["signatures"].append(signature)
            self._columns["bands"].append(self._hasher.bands(signature))
            self._document = []

    def publish(self, skipped: int) -> dict[str, Any]:
        """Make the part whole and durable, then its summary, which is returned."""
        self._write_blocks(self._num_waiting)
        sections = {name: self._write_section(name) for name in _SECTIONS if self._columns[name]}
        self._file.flush()
        os.fsync(self._file.fileno())
        size_bytes = self._file.tell()
        self._file.close()
        publish(self._place, self._space.part(self._number))
        summary = {
            "plan": self._plan,
            "number": self._number,
            "tokens": self._num_tokens,
            "documents": len(self._columns["lengths"]),
            "skipped": skipped,
            "dtype": self._dtype.str,
            "size_bytes": size_bytes,
            "block_tokens": BLOCK_TOKENS,
            "crcs": self._crcs,
            "sections": sections,
        }
        write_record(self._space.part_summary(self._number), summary)
        return summary

    def close(self) -> None:
        """Close and remove what was not published."""
        self._file.close()
        self._place.unlink(missing_ok=True)

    def _write_blocks(self, count: int) -> None:
        if not count:
            return
        tokens = np.concatenate(self._waiting).astype(self._dtype, copy=False)
        for start in range(0, count, BLOCK_TOKENS):
            data = tokens[start : min(start + BLOCK_TOKENS, count)].tobytes()
            self._crcs.append(google_crc32c.value(data))
            self._file.write(data)
        self._waiting, self._num_waiting = [tokens[count:]], len(tokens) - count
        self._num_tokens += count

    def _write_section(self, name: str) -> list[int]:
        values = self._columns[name]
        if name == "trained":
            data = np.packbits(np.concatenate(values)).tobytes()
        else:
            data = b"".join(values) if name == "hashes" else np.array(values, _SECTIONS[name]).tobytes()
        place = self._file.tell()
        self._file.write(data)
        return [place, len(data), google_crc32c.value(data)]


@dataclass
class PartFile:
    """A whole part, mapped; each block is checked when it is first read. Raises PartDamaged."""

    space: Workspace
    number: int
    summary: dict[str, Any]

    def __post_init__(self) -> None:
        if not is_present(self.space, self.number, self.summary):
            raise PartDamaged(self.number)
        path = self.space.part(self.number)
        self._data: NDArray[np.uint8] = (
            np.memmap(path, np.uint8, "r") if self.summary["size_bytes"] else np.empty(0, np.uint8)
        )
        self._dtype = np.dtype(self.summary["dtype"])
        self._checked: set[int] = set()
        self._trained: NDArray[np.uint8] | None = None

    def tokens(self, start: int, stop: int) -> NDArray[Any]:
        """Tokens start..stop-1."""
        block = self.summary["block_tokens"]
        for number in range(start // block, -(-stop // block)):
            if number not in self._checked:
                self._check(number, block * self._dtype.itemsize)
        size = self._dtype.itemsize
        return self._data[start * size : stop * size].view(self._dtype)

    def trained(self, start: int, stop: int) -> NDArray[np.uint8]:
        """1 for each of tokens start..stop-1 that is trained, else 0."""
        if "trained" not in self.summary["sections"]:
            return np.ones(stop - start, np.uint8)
        if self._trained is None:
            self._trained = self.section("trained")
        first = start // 8
        return np.unpackbits(self._trained[first : -(-stop // 8)])[start - 8 * first : stop - 8 * first]

    def section(self, name: str) -> NDArray[Any]:
        """Lengths (uint64), hashes (HASH), signatures (uint32 [documents, n]) or bands (uint64 [documents, n]).

        `trained`: one bit for each token, in bytes.
        """
        count = self.summary["documents"]
        place, size, crc = self.summary["sections"].get(name, [0, 0, 0])
        data = self._data[place : place + size]
        if google_crc32c.value(data.tobytes()) != crc:
            raise PartDamaged(self.number)
        values = data.view(_SECTIONS[name])
        return values if name in ("lengths", "hashes", "trained") else values.reshape(count, -1)

    def _check(self, number: int, block_bytes: int) -> None:
        end = self.summary["tokens"] * self._dtype.itemsize
        data = self._data[number * block_bytes : min((number + 1) * block_bytes, end)]
        if google_crc32c.value(data.tobytes()) != self.summary["crcs"][number]:
            raise PartDamaged(self.number)
        self._checked.add(number)


def read_summary(space: Workspace, number: int, plan: str) -> dict[str, Any] | None:
    """The summary of a part that was whole once, or None; `plan` is the digest of the plan that it must be of."""
    summary = read_record(space.part_summary(number))
    return summary if summary is not None and summary["plan"] == plan and summary["number"] == number else None


def is_present(space: Workspace, number: int, summary: dict[str, Any]) -> bool:
    """Whether the part's file is there in its length; damage inside is found when it is read."""
    try:
        return space.part(number).stat().st_size == int(summary["size_bytes"])
    except FileNotFoundError:
        return False


def discard(space: Workspace, number: int) -> None:
    """Remove a part that was found damaged, and its summary."""
    space.part_summary(number).unlink(missing_ok=True)
    space.part(number).unlink(missing_ok=True)
