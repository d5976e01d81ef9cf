"""A shard is the same file with the compiled part and without, and its histogram counts every token."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trainwright.storage.tokens import framing
from trainwright.storage.tokens.framing import ShardShape
from trainwright.storage.tokens.locations import file_digest
from trainwright.storage.tokens.shards import ShardSummary, summarise
from trainwright.storage.tokens.writer import write_shard

CHUNK = 512


def write(folder: Path, shape: ShardShape, blocks: list[NDArray[Any]]) -> ShardSummary:
    (folder / "c").mkdir(parents=True)
    return write_shard(folder, 0, shape, blocks)


@pytest.mark.parametrize(("dtype", "vocab_size"), [("uint16", 1 << 16), ("uint16", 700), ("uint32", 200_000)])
def test_compiled_and_numpy_write_the_same(
    tmp_path: Path, dtype: str, vocab_size: int, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    if framing._frame_function() is None:
        pytest.skip("nothing was compiled")
    monkeypatch.setattr(framing, "_FOLD_TOKENS", rng.choice([1, 5 * CHUNK, 1 << 30]))
    length = rng.randrange(1, 200 * CHUNK)
    tokens = np.random.default_rng(rng.randrange(1 << 32)).integers(0, vocab_size, length).astype(dtype)
    cuts = sorted(rng.randrange(length) for _ in range(rng.randrange(20)))
    shape = ShardShape(dtype, vocab_size, CHUNK, 200 * CHUNK, "none")
    compiled = write(tmp_path / "compiled", shape, np.split(tokens, cuts))
    monkeypatch.setattr(framing, "_frame_function", lambda: None)
    assert write(tmp_path / "numpy", shape, np.split(tokens, cuts)) == compiled
    files = [tmp_path / name / "c" / "0" for name in ("compiled", "numpy")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert file_digest(files[0]) == (compiled.size_bytes, compiled.digest)
    assert compiled.histogram == summarise(np.bincount(tokens, minlength=vocab_size))
    assert compiled.tokens == length


@pytest.mark.parametrize("compiled", [True, False])
def test_an_id_outside_the_vocabulary_is_refused(
    tmp_path: Path, compiled: bool, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(framing, "_frame_function", lambda: None)
    tokens = np.zeros(20 * CHUNK, np.uint16)
    tokens[rng.randrange(len(tokens))] = 700
    with pytest.raises(ValueError, match="token id 700 in a vocabulary of 700"):
        write(tmp_path / "store", ShardShape("uint16", 700, CHUNK, 20 * CHUNK, "none"), [tokens])
    assert not (tmp_path / "store" / "c" / "0").exists()
