"""JSON lines, plain, gzip or zstd: one line is one record, read as a stream."""

import gzip
import io
import json
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import IO, Any

from ....config.errors import UserError
from .base import MAX_DOCUMENT_BYTES, Sized, bad, missing_package, no_field, open_file, text_of
from .chats import pack_chat

_EXPANSION = 4
_MAX_LINE_BYTES = 4 * MAX_DOCUMENT_BYTES  # JSON may escape, and records have other fields
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_PIECE_BYTES = 1 << 20
_INPUT_BYTES = 1 << 11  # little, since a byte may stand for thousands
_MAX_WINDOW_BYTES = 1 << 31  # what `zstd --long=31` writes


def expansion(path: str) -> int:
    """About how many bytes of text a byte of the file is."""
    return _EXPANSION if _compression(path) else 1


def cut_jsonl(path: str, field: str, part_bytes: int) -> list[int]:
    """Byte offsets of lines, about `part_bytes` apart, at which a plain file may be cut; a compressed one has none."""
    if _compression(path):
        return []
    places: list[int] = []
    with open_file(path) as file:
        size_bytes = file.seek(0, os.SEEK_END)
        for target in range(part_bytes, size_bytes, part_bytes):
            if places and target <= places[-1]:
                continue
            file.seek(target - 1)
            while (piece := file.readline(_PIECE_BYTES)) and not piece.endswith(b"\n"):
                pass
            if file.tell() < size_bytes:
                places.append(file.tell())
    return places


def read_jsonl(path: str, field: str, start: int = 0, stop: int | None = None) -> Iterator[Sized]:
    """Documents of a file of JSON lines: the string `field` of each line's object. Blank lines are passed over.

    `start` and `stop` are byte offsets of lines, of a plain file alone. Raises UserError naming file and line where a
    line is cut, no JSON object, or without such a string.
    """

    def text(record: dict[str, Any], number: int) -> str:
        if field not in record:
            raise no_field(path, f"line {number}: ", field, record)
        return text_of(record[field], path, f"line {number}", field)

    try:
        yield from _documents(path, text, (start, stop), 1 if start else 0)
    except UserError:
        if start:  # how many lines stand before is counted only now: reading it all for each part would be too slow
            deque(_documents(path, text, (start, stop), _count_lines(path, start)), maxlen=0)
        raise


def read_jsonl_chats(path: str, field: str, start: int = 0, stop: int | None = None) -> Iterator[Sized]:
    """Chats of a file of JSON lines, packed; else as read_jsonl.

    Lines are counted from the file's start, since a chat's place is told later: rendering takes much longer.
    """

    def chat(record: dict[str, Any], number: int) -> str:
        return pack_chat(record, path, f"line {number}", field)

    yield from _documents(path, chat, (start, stop), _count_lines(path, start) if start else 0)


def read_records(path: str) -> Iterator[tuple[int, dict[str, Any], int]]:
    """Line number, object, and bytes of the file read by then, of each line. Raises UserError as read_jsonl does."""
    with open_file(path) as raw:
        for number, line in _lines(path, raw, _decompressed(path, raw), None):
            record = _parse(path, number, line)
            if record is not None:
                yield number, record, raw.tell()


def _documents(
    path: str, text_of_record: Callable[[dict[str, Any], int], str], span: tuple[int, int | None], lines_before: int
) -> Iterator[Sized]:
    start, stop = span
    with open_file(path) as raw:
        before = raw.seek(start)
        stream = raw if start or stop is not None else _decompressed(path, raw)
        for number, line in _lines(path, raw, stream, stop):
            number += lines_before
            record = _parse(path, number, line)
            if record is None:
                continue
            text = text_of_record(record, number)
            place = raw.tell()
            yield text, place - before
            before = place


def _count_lines(path: str, stop: int) -> int:
    lines = place = 0
    with open_file(path) as file:
        while place < stop and (piece := file.read(min(_PIECE_BYTES, stop - place))):
            lines += piece.count(b"\n")
            place += len(piece)
    return lines


def _lines(path: str, raw: IO[bytes], stream: IO[bytes], stop: int | None) -> Iterator[tuple[int, bytes]]:
    number = 0
    while stop is None or raw.tell() < stop:
        try:
            line = stream.readline(_MAX_LINE_BYTES + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise bad(path, f"byte {raw.tell()}, after line {number}: cut or damaged ({error})") from None
        if not line:
            return
        number += 1
        if len(line) > _MAX_LINE_BYTES:
            raise bad(path, f"line {number} has more than {_MAX_LINE_BYTES >> 20} MiB", "split the document")
        yield number, line


def _parse(path: str, number: int, line: bytes) -> dict[str, Any] | None:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad(path, f"line {number} is not UTF-8 (byte {error.start} of the line)") from None
    text = text.removeprefix("\ufeff") if number == 1 else text
    if not text.strip():
        return None
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        cut = "" if line.endswith(b"\n") else "; the file ends in this line"
        raise bad(path, f"line {number}, column {error.colno}: not JSON ({error.msg}{cut})") from None
    except (ValueError, RecursionError) as error:
        raise bad(path, f"line {number}: not JSON ({error})") from None
    if not isinstance(record, dict):
        raise bad(path, f"line {number}: a JSON {type(record).__name__}, not an object", 'write {"text": ...} per line')
    return record


def _compression(path: str) -> str:
    if path.endswith(".gz"):
        return "gzip"
    if path.endswith((".zst", ".zstd")):
        return "zstd"
    with open_file(path) as file:
        start = file.read(4)
    return "gzip" if start.startswith(_GZIP) else "zstd" if start == _ZSTD else ""


def _decompressed(path: str, raw: IO[bytes]) -> IO[bytes]:
    compression = _compression(path)
    if compression and not raw.peek(1):  # type: ignore[attr-defined]
        raise bad(path, f"empty, which {compression} never is")
    if compression == "gzip":
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    if compression == "zstd":
        return io.BufferedReader(_ZstdFile(path, raw), 1 << 16)
    return raw


class _ZstdFile(io.RawIOBase):
    """Text of zstd frames. Unlike the package's own stream reader it notices a frame that is cut."""

    def __init__(self, path: str, raw: IO[bytes]) -> None:
        try:
            import zstandard
        except ImportError:
            raise missing_package(path, "zstandard", "a .zst file") from None
        self._raw, self._path = raw, path
        self._error = zstandard.ZstdError
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        self._frame: Any = None
        self._ready = memoryview(b"")
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; 0 at the end. Raises EOFError where a frame is damaged or cut."""
        while not self._ready:
            data = self._rest or self._raw.read(_INPUT_BYTES)
            self._rest = b""
            if not data:
                if self._frame is not None:
                    raise EOFError("the last zstd frame is cut")
                return 0
            self._ready = memoryview(self._decompress(data))
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def _decompress(self, data: bytes) -> bytes:
        if self._frame is None:
            self._frame = self._decompressor.decompressobj()
        try:
            text = self._frame.decompress(data)
        except self._error as error:
            raise EOFError(str(error)) from None
        if self._frame.eof:
            self._rest = self._frame.unused_data
            self._frame = None
        return bytes(text)
