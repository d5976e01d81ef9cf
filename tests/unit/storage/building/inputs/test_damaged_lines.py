"""Damaged files of JSON lines are named with the line, and nothing is left of the build."""

import gzip
import random
import re
from pathlib import Path

import pytest
import zstandard

from trainwright.storage.building.inputs import base, jsonl

from .damage import TEXTS, cut, cut_by, flip, refused, replace
from .files import json_lines


def zstd(texts: list[str]) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(json_lines(texts))


LINES = json_lines(TEXTS)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", cut_by(10)(LINES), "line 40, column 78: not JSON (Unterminated string"),
        ("a.jsonl", cut_by(10)(LINES), "the file ends in this line"),
        ("a.jsonl", replace(b'"text"', b"text", 16)(LINES), "line 17, column 12: not JSON (Expecting property name"),
        ("a.jsonl", replace(b"words", b"w\xffrds", 2)(LINES), "line 3 is not UTF-8 (byte 39 of the line)"),
        ("a.jsonl", replace(b"words", b"\\ud800", 2)(LINES), "line 3: 'text' holds half of a surrogate pair (charac"),
        ("a.jsonl", replace(b'"text"', b'"test"', 5)(LINES), "line 6: no field 'text' (there are: id, note, test); na"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": null}\n', "line 3: 'text' is null; remove the record"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 5}\n', "line 2: 'text' is of type int, not a string; name the field"),
        ("a.jsonl", b'{"text": "a"}\n["b"]\n', "line 2: a JSON list, not an object"),
        ("a.jsonl", b'{"text": "a"}\n' + b"[" * 100_000, "line 2"),
        ("a.jsonl", b'{"text": "a", "n": ' + b"9" * 5000 + b"}\n", "line 1: not JSON (Exceeds the limit"),
        ("a.jsonl", "a line".encode("utf-16"), "line 1 is not UTF-8 (byte 0"),
        ("a.jsonl.gz", cut(0.5)(gzip.compress(LINES)), "cut or damaged (Compressed file ended before"),
        ("a.jsonl.gz", flip(300)(gzip.compress(LINES)), "line "),
        ("a.jsonl.gz", flip(0)(gzip.compress(LINES)), "after line 0: cut or damaged (Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(LINES) + b"junk", "after line 40: cut or damaged (Not a gzipped file"),
        ("a.jsonl.gz", b"", "empty, which gzip never is"),
        ("a.jsonl.zst", cut(0.5)(zstd(TEXTS)), "cut or damaged (the last zstd frame is cut)"),
        ("a.jsonl.zst", zstd(TEXTS) + cut_by(1)(zstd(TEXTS)), "line 80: cut or damaged (the last zstd frame is cut)"),
        ("a.jsonl.zst", flip(300)(zstd(TEXTS)), "line 0: cut or damaged (zstd"),
        ("a.jsonl.zst", b"", "empty, which zstd never is"),
    ],
)
def test_json_lines(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    message = refused(tmp_path, tmp_path / name)
    assert message.startswith(f"SOURCE {tmp_path / name}: ")
    assert words in message


def test_a_cut_stream_names_the_last_whole_line(tmp_path: Path, rng: random.Random) -> None:
    """Long files, so that much is read before the cut is met; never more lines than are whole."""
    texts = [str(rng.getrandbits(400)) for _ in range(2000)]
    lines = json_lines(texts)
    for name, data in (("a.jsonl.gz", gzip.compress(lines)), ("a.jsonl.zst", zstd(texts))):
        share = rng.uniform(0.3, 0.95)
        (tmp_path / name).write_bytes(cut(share)(data))
        message = refused(tmp_path, tmp_path / name)
        place = re.search(r"byte (\d+), after line (\d+): cut or damaged", message)
        assert place, message
        assert int(place[1]) == len(cut(share)(data))
        assert share * 2000 - 1000 < int(place[2]) <= share * 2000 + 20


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "_MAX_LINE_BYTES", 1000)
    (tmp_path / "a.jsonl").write_bytes(json_lines(["short", "x" * 1000]))
    assert "line 2 has more than 0 MiB; split the document" in refused(tmp_path, tmp_path / "a.jsonl")
    monkeypatch.setattr(base, "MAX_DOCUMENT_BYTES", 900)
    monkeypatch.setattr(jsonl, "_MAX_LINE_BYTES", 4000)
    assert "line 2: 'text' has 0 MiB, and a document has at most" in refused(tmp_path, tmp_path / "a.jsonl")
