"""The corpus in each format that is read: written once, kept in the benchmark's folder."""

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .corpus import END_OF_DOCUMENT, Corpus
from .settings import VOCABULARY, WIDTH, Settings

_MEGATRON_MAGIC, _MEGATRON_UINT16 = b"MMIDIDX\x00\x00", 8
_BLOCKS_PER_CHUNK = 32_000
_SHARD_SAMPLES = 32_000


def once(settings: Settings, name: str, write: Callable[[Path], None]) -> Path:
    """A folder of data, written beside its place and renamed if it is not there yet."""
    path = settings.folder / f"{name}-{settings.tokens}"
    if not path.exists():
        beside = path.with_name(f".{path.name}.tmp")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        write(beside)
        os.rename(beside, path)
    return path


def our_store(settings: Settings, corpus: Corpus) -> Path:
    """A token store as `trainwright data build` makes it: default chunks and shards, checksums."""

    def write(folder: Path) -> None:
        source = megatron_prefix(settings, corpus).with_suffix(".bin")
        build(["--tokenizer", str(word_tokenizer(folder)), "--format", "megatron", str(source)], folder / "store")

    return once(settings, "trainwright", write) / "store"


def build(arguments: list[str], store: Path) -> None:
    """`trainwright data build`, in a process of its own."""
    command = [sys.executable, "-m", "trainwright.cli.main", "data", "build", *arguments, str(store)]
    subprocess.run(command, check=True, timeout=600, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def word_tokenizer(folder: Path) -> Path:
    """A tokenizer.json whose vocabulary is as large as the corpus's ids go: a word for each."""
    from tokenizers import Tokenizer, models

    words = {f"word{number}": number for number in range(1, VOCABULARY)} | {"<|endoftext|>": END_OF_DOCUMENT}
    path = folder / "tokenizer.json"
    Tokenizer(models.WordLevel(words, unk_token="word1")).save(str(path))
    return path


def megatron_prefix(settings: Settings, corpus: Corpus) -> Path:
    """The corpus as Megatron's .bin and .idx, a document a sequence; the prefix of their names."""

    def write(folder: Path) -> None:
        os.link(corpus.path, folder / "corpus.bin")
        lengths = np.diff(corpus.ends, prepend=0)
        with (folder / "corpus.idx").open("wb") as file:
            file.write(_MEGATRON_MAGIC + struct.pack("<QB", 1, _MEGATRON_UINT16))
            file.write(struct.pack("<QQ", len(lengths), len(lengths) + 1))
            lengths.astype("<i4").tofile(file)
            ((corpus.ends - lengths) * 2).astype("<i8").tofile(file)
            np.arange(len(lengths) + 1, dtype="<i8").tofile(file)

    return once(settings, "megatron", write) / "corpus"


def tensorstore_array(settings: Settings, corpus: Corpus) -> Path:
    """A sharded Zarr v3 array as tensorstore writes it, without checksums, 8 samples an inner chunk."""

    def write(folder: Path) -> None:
        import tensorstore

        chunk = 8 * WIDTH
        inner = {"chunk_shape": [chunk], "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}]}
        metadata = {
            "shape": [len(corpus.tokens)],
            "data_type": "uint16",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [_SHARD_SAMPLES // 8 * chunk]}},
            "codecs": [{"name": "sharding_indexed", "configuration": inner}],
        }
        kvstore = {"driver": "file", "path": str(folder)}
        spec = {"driver": "zarr3", "kvstore": kvstore, "metadata": metadata, "create": True}
        tensorstore.open(spec).result()[...].write(corpus.tokens).result()

    return once(settings, "tensorstore", write)


def litdata_folder(settings: Settings, corpus: Corpus) -> Path:
    """litdata's chunks, uint16, a sample an item, so that no block is cut by a chunk's end."""

    def write(folder: Path) -> None:
        import torch
        from litdata import TokensLoader
        from litdata.streaming.cache import Cache

        loader = TokensLoader(block_size=WIDTH)
        cache = Cache(str(folder), chunk_bytes=_BLOCKS_PER_CHUNK * WIDTH * 2, item_loader=loader)
        for number, sample in enumerate(_samples(corpus)):
            cache[number] = torch.from_numpy(sample)
        cache.done()
        cache.merge()

    return once(settings, "litdata", write)


def mosaic_folder(settings: Settings, corpus: Corpus) -> Path:
    """MosaicML's MDS shards, uncompressed, a sample each of fixed shape, which its decoder reads fastest."""

    def write(folder: Path) -> None:
        from .mosaic import base

        columns = {"tokens": f"ndarray:uint16:{WIDTH}"}
        with base().MDSWriter(out=str(folder), columns=columns, size_limit=1 << 27) as writer:
            for sample in _samples(corpus):
                writer.write({"tokens": sample})

    return once(settings, "mosaic", write)


def _samples(corpus: Corpus) -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    """Samples that do not overlap, [samples, WIDTH], copied since writers want arrays that they may write to."""
    count = len(corpus.tokens) // WIDTH
    return corpus.tokens[: count * WIDTH].reshape(count, WIDTH).copy()
