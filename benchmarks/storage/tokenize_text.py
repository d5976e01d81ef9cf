"""Line 8: from JSON lines to tokens on disk, per core, against datatrove and Megatron: same text, same tokenizer.

Run: make bench-storage ARGS=tokenize_text
"""

import json
import os
import shutil
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.tokens.reader import open_store
from trainwright.storage.tokens.tokenizer import END_OF_DOCUMENT, train_tokenizer

from .report import Row, rates
from .settings import Settings, start
from .timing import Rate, compared, cpu_seconds

_VOCABULARY = 32_768
_TRAINING_TEXTS = 400
_MOST_ROUNDS = 5  # each is a minute
Way = Callable[[Path, Path, Path], NDArray[np.uint16]]
"""Tokenizes a file of JSON lines with a tokenizer.json into a folder; gives the tokens as they are there."""


def measure(settings: Settings) -> bool:
    """Print the table; whether we are at least as fast as the faster peer."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core: the tokenizers' threads see no other
    text, tokenizer = _text(settings), settings.folder / "bpe" / "tokenizer.json"
    ways: dict[str, Way] = {"ours": _ours}
    for name, way in _PEERS.items():
        if settings.peers:
            ways[name] = way
    taken: dict[str, list[Rate]] = {name: [] for name in ways}
    expected: NDArray[np.uint16] | None = None
    for turn in range(min(settings.rounds, _MOST_ROUNDS) + 1):
        for name, way in ways.items() if turn % 2 else reversed(ways.items()):
            speed, tokens = _timed(way, text, tokenizer, settings.folder / "tokenized")
            expected = tokens if expected is None else expected
            assert np.array_equal(tokens, expected), f"{name} gives other tokens"
            if turn:  # the first turn warms the caches
                taken[name].append(speed)
    mine = taken.pop("ours")
    rows = [Row(name, compared(list(zip(mine, theirs, strict=True)))) for name, theirs in taken.items()]
    fastest = min(rows, key=lambda row: row.result.cpu_ratio if row.result else 0, default=None)
    rows = [Row(row.what, row.result, 1.0 if row is fastest else None) for row in rows]
    size = text.stat().st_size / 2**20
    return rates(f"8. Tokenizing {size:.0f} MiB of JSON lines (Python's own library) on one core, to files on it", rows)


def _timed(way: Way, text: Path, tokenizer: Path, folder: Path) -> tuple[Rate, NDArray[np.uint16]]:
    """Rate by CPU seconds of this process and of children that ended; and the tokens."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    begun, cpu = time.perf_counter(), cpu_seconds()
    tokens = way(text, tokenizer, folder)
    wall, cpu = time.perf_counter() - begun, cpu_seconds() - cpu
    tokens = np.array(tokens)
    shutil.rmtree(folder)
    return Rate(len(tokens) / cpu / 1e6, len(tokens) / wall / 1e6), tokens


def _ours(text: Path, tokenizer: Path, folder: Path) -> NDArray[np.uint16]:
    options = BuildOptions(tokenizer=tokenizer, format="jsonl")
    build_store([text], folder / "store", options, lambda stage, done, total: None)
    store = open_store(folder / "store")
    return store.read(0, store.num_tokens)  # type: ignore[return-value]


def _datatrove(text: Path, tokenizer: Path, folder: Path) -> NDArray[np.uint16]:
    """Its reader and its step, without the second pass that shuffles documents."""
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from loguru import logger

    logger.disable("datatrove")
    reader = JsonlReader(str(text.parent), glob_pattern=text.name, doc_progress=False, file_progress=False)
    step = DocumentTokenizer(
        str(folder), tokenizer_name_or_path=str(tokenizer), eos_token=END_OF_DOCUMENT, shuffle_documents=False
    )
    step.run(reader.run())
    return np.fromfile(next(folder.glob("*.ds")), "<u2")


def _megatron(text: Path, tokenizer: Path, folder: Path) -> NDArray[np.uint16]:
    """The loop of Megatron's tools/preprocess_data.py, which its package leaves out, with its IndexedDatasetBuilder.

    One process, as one core is measured; the tokenizer is called directly, which is faster than through its wrappers.
    """
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder
    from tokenizers import Tokenizer

    model: Any = Tokenizer.from_file(str(tokenizer))
    end = model.token_to_id(END_OF_DOCUMENT)
    builder = IndexedDatasetBuilder(str(folder / "text.bin"), dtype=np.uint16)
    with text.open(encoding="utf-8") as lines:
        for line in lines:
            ids = model.encode(json.loads(line)["text"]).ids
            ids.append(end)
            builder.add_document(ids, [len(ids)])
    builder.finalize(str(folder / "text.idx"))
    return np.fromfile(folder / "text.bin", "<u2")


def _text(settings: Settings) -> Path:
    """Python's own library as JSON lines, a file a document, and beside it a tokenizer trained on some of it."""
    folder = settings.folder / "bpe"
    folder.mkdir(exist_ok=True)
    texts: list[str] = []
    left = settings.text_bytes
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if left > 0 and "site-packages" not in path.parts:
            content = path.read_bytes().decode("utf-8", "replace").replace("\0", "")
            if content and END_OF_DOCUMENT not in content:
                texts.append(content)
                left -= len(content)
    path = folder / f"text-{settings.text_bytes}.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    if not (folder / "tokenizer.json").exists():
        chosen = train_tokenizer(texts[:: max(1, len(texts) // _TRAINING_TEXTS)], _VOCABULARY)
        for name, content in chosen.files.items():
            (folder / name).write_text(content, encoding="utf-8")
    return path


_PEERS: dict[str, Way] = {
    "datatrove DocumentTokenizer": _datatrove,
    "Megatron's preprocess loop": _megatron,
}

if __name__ == "__main__":
    start(measure)
