"""Histograms find what went wrong when a store was made."""

import json
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from trainwright.config.errors import UserError
from trainwright.config.loading import load_run
from trainwright.launchers.run_checks import check_run
from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.tokens import quality as quality_module
from trainwright.storage.tokens.inventory import read_inventory
from trainwright.storage.tokens.quality import divergence, quality_of, sketch_of
from trainwright.storage.tokens.reader import open_store
from trainwright.storage.tokens.shards import summarise

from ..conftest import WORDS, quiet

Make = Callable[..., Path]


@pytest.fixture
def word_tokenizer(tmp_path: Path) -> Path:
    """A tokenizer that knows half of the test's words and calls all others <unk>."""
    vocabulary = {"<unk>": 0, "</s>": 1, **{word: number for number, word in enumerate(dict.fromkeys(WORDS[:12]), 2)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path / "words"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    return folder


def test_a_sketch_is_exact_and_so_are_the_commonest() -> None:
    counts = np.random.default_rng(3).integers(0, 50, 1000)
    summary = summarise(counts)
    assert summary["sketch"] == [int(counts[bucket::64].sum()) for bucket in range(64)]
    assert len(summary["top"]) == 32
    assert [count for _, count in summary["top"]] == sorted(counts.tolist(), reverse=True)[:32]


def test_an_unknown_token_flood_stops_submit(
    make_store: Make, word_tokenizer: Path, run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(make_store(tokenizer=word_tokenizer, vocab_size=None))
    quality = quality_of(store)
    tokens = [store.read(at, min(at + 2048, store.num_tokens)) for at in range(0, store.num_tokens, 2048)]
    shares = [float((shard == 0).mean()) for shard in tokens]
    assert quality.unknown == pytest.approx(max(shares))
    assert quality.unknown_shard == f"c/{int(np.argmax(shares))}"
    assert quality.flood_token == 0
    assert quality.flood == quality.unknown
    with pytest.raises(UserError, match=r"data\.train\.0\.store: the unknown token is \d+% of .*/c/\d, above"):
        check_run(load_run(run_file, []))
    check_run(load_run(run_file, ["data.quality=warn"]))
    assert "warning: data.train.0.store: the unknown token is" in capsys.readouterr().err
    check_run(load_run(run_file, ["data.max_unknown=1"]))
    check_run(load_run(run_file, ["data.quality=off"]))
    assert capsys.readouterr().err == ""


def test_another_tokenizer_beside_the_model_stops_submit(
    make_store: Make, word_tokenizer: Path, run_file: Path
) -> None:
    store = make_store()
    folder = Path(load_run(run_file, []).model).parent
    (folder / "tokenizer.json").write_bytes((store / "tokenizer" / "tokenizer.json").read_bytes())
    check_run(load_run(run_file, []))
    (folder / "tokenizer.json").write_bytes((word_tokenizer / "tokenizer.json").read_bytes())
    with pytest.raises(UserError, match=r"data\.train: the stores' tokenizer is not that of the model"):
        check_run(load_run(run_file, []))


def test_cut_ids(make_store: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(make_store())
    assert not quality_of(store).cut_ids
    store.info = replace(store.info, vocab_size=128_256)
    assert not quality_of(store).cut_ids, "too few tokens to say"
    monkeypatch.setattr(quality_module, "_FEW_TOKENS", 1000)
    assert quality_of(store).cut_ids


def test_a_shard_of_another_kind_and_stores_that_differ(make_store: Make, tmp_path: Path, rng: random.Random) -> None:
    plain = make_store()
    for name, words in (("same", WORDS), ("other", ["0123456789", "987", "=+-"])):
        (tmp_path / name).mkdir()
        for number in range(20):
            (tmp_path / name / f"{number}.txt").write_text(" ".join(rng.choices(words, k=300)))
    tokenizer = plain / "tokenizer"
    stores = [make_store(f"{name}.zarr", tmp_path / name, tokenizer=tokenizer) for name in ("same", "other")]
    both = tmp_path / "both.zarr"
    sources = [tmp_path / "text", tmp_path / "other"]
    build_store(sources, both, BuildOptions(tokenizer=tokenizer, vocab_size=None, shard_tokens=2048), quiet)
    sketches = {path.stem: sketch_of(read_inventory(path, open_store(path).info)) for path in (plain, *stores)}
    near, far = (divergence(sketches["store"], sketches[name]) for name in ("same", "other"))
    assert divergence(sketches["store"], sketches["store"]) == 0
    assert near < 0.05 < 0.1 < far <= 1
    quality = quality_of(open_store(both))
    assert quality_of(open_store(plain)).drift < 0.02 < 0.05 < quality.drift
    began = time.perf_counter()
    quality_of(open_store(both))
    print(f"{(time.perf_counter() - began) * 1e3:.1f} ms")


def test_a_short_last_shard_is_not_judged(word_tokenizer: Path, tmp_path: Path, rng: random.Random) -> None:
    sources = [tmp_path / "a.txt", tmp_path / "z.txt"]
    sources[0].write_text(" ".join(rng.choices(WORDS[:12], k=4095)))  # and the end of the document: two shards
    options = BuildOptions(tokenizer=word_tokenizer, vocab_size=None, shard_tokens=2048)
    drifts = {}
    for words in (1000, 1100):
        sources[1].write_text("the " * words)
        build_store(sources, tmp_path / f"{words}.zarr", options, quiet)
        quality = quality_of(open_store(tmp_path / f"{words}.zarr"))
        drifts[words] = quality.drift, quality.drift_shard
    assert drifts[1000][0] < 0.1 < drifts[1100][0]
    assert drifts[1100][1] == "c/2"
