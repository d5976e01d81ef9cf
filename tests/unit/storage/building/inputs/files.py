"""The same texts as files of every format, and what a store holds."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.tokens.reader import open_store
from trainwright.storage.tokens.verify import verify_store

from ...conftest import quiet

TEXTS = [
    "plain words",
    "",
    "naïve 数据 🎉 e\u0301 \u202eright to left\u202c",
    "one\r\ntwo\r\n\rthree\n",
    "one long line of many words " * 20_000,
    "spelt <|endoftext|> inside",
    "lines by other names: \u2028 \u2029 \x0b \x0c \x1c \x85 end",
    " \t spaces around \n ",
    '{"text": "JSON inside", "n": [1, 2]} \\n \\u0041 \\',
    "\ufeffa byte order mark",
    "\u0001 \u007f \ufffe \U0010ffff",
    "",
]

Writer = Callable[[Path, Sequence[str]], Path]


def json_lines(texts: Sequence[str], end: str = "\n") -> bytes:
    """One object per line, every other one escaped to ASCII."""
    lines = [
        json.dumps({"id": number, "text": text, "note": None}, ensure_ascii=number % 2 == 0)
        for number, text in enumerate(texts)
    ]
    return "".join(line + end for line in lines).encode()


def _file(name: str, content: Callable[[Sequence[str]], bytes]) -> Writer:
    def write(folder: Path, texts: Sequence[str]) -> Path:
        (folder / name).write_bytes(content(texts))
        return folder / name

    return write


def _two_frames(texts: Sequence[str]) -> bytes:
    data = json_lines(texts)
    compressor = zstandard.ZstdCompressor(write_checksum=True)
    return compressor.compress(data[:99]) + compressor.compress(data[99:])


def table(texts: Sequence[str], kind: Any = None) -> Any:
    """A table with the texts and another column."""
    return pa.table({"id": list(range(len(texts))), "text": pa.array(list(texts), kind or pa.string())})


def write_parquet(path: Path, texts: Sequence[str], **options: Any) -> Path:
    """A Parquet file of row groups of four."""
    pq.write_table(table(texts), path, row_group_size=4, **options)
    return path


def _parquet(folder: Path, texts: Sequence[str]) -> Path:
    return write_parquet(folder / "a.parquet", texts)


def _categories(folder: Path, texts: Sequence[str]) -> Path:
    column = pa.array(list(texts), pa.large_string()).dictionary_encode()
    pq.write_table(pa.table({"text": column}), folder / "categories.parquet")
    return folder / "categories.parquet"


def _hub(folder: Path, texts: Sequence[str]) -> Path:
    """A snapshot in the Hub's cache: links to blobs, a card, parts of a split."""
    snapshot, blobs = folder / "snapshots" / "0123abcd", folder / "blobs"
    (snapshot / "data").mkdir(parents=True)
    blobs.mkdir()
    (snapshot / "README.md").write_text("# A data set")
    (snapshot / ".gitattributes").write_text("*.parquet filter=lfs")
    for number, part in enumerate((texts[:5], texts[5:])):
        write_parquet(blobs / f"blob{number}", part)
        (snapshot / "data" / f"train-0000{number}-of-00002.parquet").symlink_to(f"../../../blobs/blob{number}")
    return snapshot


def write_stream(path: Path, texts: Sequence[str], kind: Any = None) -> Path:
    """An Arrow stream of record batches of five rows, as `datasets` writes them (there, of a thousand)."""
    rows = table(texts, kind)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, rows.schema) as stream:
        stream.write_table(rows, max_chunksize=5)
    return path


def _stream(folder: Path, texts: Sequence[str]) -> Path:
    return write_stream(folder / "a.arrow", texts)


def _views(folder: Path, texts: Sequence[str]) -> Path:
    return write_stream(folder / "views.arrow", texts, pa.string_view())


def _arrow_file(folder: Path, texts: Sequence[str]) -> Path:
    rows = table(texts, pa.large_string())
    with pa.OSFile(str(folder / "f.arrow"), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=5)
    return folder / "f.arrow"


def write_saved(folder: Path, texts: Sequence[str]) -> Path:
    """What `Dataset.save_to_disk(folder, num_shards=2)` of datasets 5.2 writes, and a cache file of a later `map`."""
    folder.mkdir(parents=True)
    names = [f"data-0000{number}-of-00002.arrow" for number in range(2)]
    for name, part in zip(names, (texts[:7], texts[7:]), strict=True):
        write_stream(folder / name, part)
    write_stream(folder / "cache-0123456789abcdef.arrow", ["not of the dataset"])
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "909f70b5e10a7b61",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    (folder / "state.json").write_text(json.dumps(state, indent=2))
    features = {"id": {"dtype": "int64", "_type": "Value"}, "text": {"dtype": "string", "_type": "Value"}}
    info = {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2))
    return folder


def _saved(folder: Path, texts: Sequence[str]) -> Path:
    return write_saved(folder / "saved", texts)


def _saved_dict(folder: Path, texts: Sequence[str]) -> Path:
    write_saved(folder / "dict" / "train", texts)
    (folder / "dict" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    return folder / "dict"


def write_strings(path: Path, texts: Sequence[str], field: str = "text") -> Path:
    """An HDF5 file with a dataset of strings."""
    with h5py.File(path, "w") as file:
        file.create_dataset(field, data=list(texts), dtype=h5py.string_dtype("utf-8"), chunks=(min(4, len(texts)),))
    return path


def _strings(folder: Path, texts: Sequence[str]) -> Path:
    return write_strings(folder / "a.h5", texts)


WRITERS: dict[str, Writer] = {
    "jsonl": _file("a.jsonl", json_lines),
    "crlf": _file("a.ndjson", lambda texts: b"\xef\xbb\xbf" + json_lines(texts, "\r\n\r\n").rstrip()),
    "gzip": _file(
        "a.jsonl.gz", lambda texts: gzip.compress(json_lines(texts[:6])) + gzip.compress(json_lines(texts[6:]))
    ),
    "zstd": _file("a.jsonl.zst", _two_frames),
    "parquet": _parquet,
    "categories": _categories,
    "hub": _hub,
    "stream": _stream,
    "views": _views,  # for little text only: each record batch holds the whole table's buffers again
    "file": _arrow_file,
    "saved": _saved,
    "dict": _saved_dict,
    "hdf5": _strings,
}


def write_pair(prefix: Path, documents: Sequence[Sequence[Sequence[int]]], dtype: Any = np.uint16) -> Path:
    """A Megatron pair by hand: documents of sequences of token ids."""
    sequences = [np.array(sequence, dtype) for document in documents for sequence in document]
    sizes = np.array([len(sequence) for sequence in sequences], np.int32)
    offsets = np.cumsum([0, *(sequence.nbytes for sequence in sequences)], dtype=np.int64)[:-1]
    boundaries = np.cumsum([0, *(len(document) for document in documents)], dtype=np.int64)
    code = {"uint8": 1, "int32": 4, "int64": 5, "float32": 7, "uint16": 8}[np.dtype(dtype).name]
    header = b"MMIDIDX\0\0" + (1).to_bytes(8, "little") + bytes([code])
    counts = np.array([len(sizes), len(boundaries)], "<u8").tobytes()
    prefix.with_suffix(".bin").write_bytes(b"".join(sequence.tobytes() for sequence in sequences))
    index = header + counts + sizes.tobytes() + offsets.tobytes() + boundaries.tobytes()
    prefix.with_suffix(".idx").write_bytes(index)
    return prefix


def build(store: Path, *sources: Path, **options: Any) -> Path:
    """Build a store, check it to the last byte, and give it."""
    build_store(sources, store, BuildOptions(**options), quiet)
    verify_store(store, lambda done, total: None)
    return store


def contents(store: Path) -> tuple[list[list[int]], str]:
    """Token ids of each document, and the tokenizer's fingerprint."""
    opened = open_store(store)
    tokens = opened.read(0, opened.num_tokens)
    starts = opened.document_index.within(1, opened.num_tokens)
    return [part.tolist() for part in np.split(tokens, starts)], opened.info.tokenizer_fingerprint
