"""The tokens that every reader reads and every writer writes: Zipf-like ids, documents of log-normal length, seeded."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .settings import SEED, VOCABULARY, Settings

END_OF_DOCUMENT = 0
_MEAN_DOCUMENT, _SPREAD = 800, 1.0
_TABLE = 1 << 22
_BLOCK = 1 << 24


@dataclass(frozen=True)
class Corpus:
    """Tokens with the end-of-document token 0 after each document, and nowhere else."""

    path: Path
    """The tokens alone, little-endian uint16: what a memory map reads."""
    tokens: NDArray[np.uint16]
    """Mapped, [tokens]."""
    ends: NDArray[np.int64]
    """Where documents end, ascending, [documents]."""

    def documents(self) -> list[NDArray[np.uint16]]:
        """All documents, views."""
        return np.split(self.tokens, self.ends[:-1])


def open_corpus(settings: Settings) -> Corpus:
    """The corpus of these settings, made if it is not there."""
    folder = settings.folder / f"corpus-{settings.tokens}"
    path, ends_path = folder / "tokens.bin", folder / "ends.npy"
    if not folder.is_dir():
        beside = folder.with_name(f".{folder.name}.tmp")
        beside.mkdir(exist_ok=True)
        _make(beside / path.name, beside / ends_path.name, settings.tokens)
        os.rename(beside, folder)
    # A plain array over the map: slices of np.memmap itself cost a Python object each, and the baseline gets the best.
    return Corpus(path, np.asarray(np.memmap(path, np.uint16, "r")), np.load(ends_path))


def _make(path: Path, ends_path: Path, num_tokens: int) -> None:
    generator = np.random.default_rng(SEED)
    ids = _id_table(generator)
    mu = np.log(_MEAN_DOCUMENT) - _SPREAD**2 / 2
    lengths = generator.lognormal(mu, _SPREAD, 2 * num_tokens // _MEAN_DOCUMENT + 100).astype(np.int64)
    ends = np.cumsum(np.maximum(8, lengths))
    ends = ends[ends < num_tokens - 8]
    ends = np.append(ends, num_tokens)
    with path.open("wb") as file:
        for start in range(0, num_tokens, _BLOCK):
            stop = min(start + _BLOCK, num_tokens)
            block = ids[generator.integers(0, _TABLE, stop - start, dtype=np.uint32)]
            low, high = np.searchsorted(ends, [start + 1, stop + 1])
            block[ends[low:high] - 1 - start] = END_OF_DOCUMENT
            block.tofile(file)
    np.save(ends_path, ends)


def _id_table(generator: np.random.Generator) -> NDArray[np.uint16]:
    """Ids so that a uniform pick is Zipf-Mandelbrot distributed over 1..VOCABULARY-1; ids follow rank only loosely."""
    ranks = np.arange(1, VOCABULARY)
    weights = (ranks + 2.7) ** -1.07
    cumulative = np.cumsum(weights / weights.sum())
    picked = np.searchsorted(cumulative, (np.arange(_TABLE) + 0.5) / _TABLE)
    shuffled = np.argsort(ranks + generator.normal(0, 500, len(ranks))).astype(np.uint16) + np.uint16(1)
    return shuffled[picked]
