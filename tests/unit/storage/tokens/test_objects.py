"""Stores in an object store: the same tokens as in a folder, and what is wrong is named by URL and chunk."""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.s3_server import BUCKET, S3
from tests.unit.storage.chats import chat_store
from tests.unit.storage.tokens.test_reader import write_wide
from trainwright.cli.main import main
from trainwright.config.data import DataConfig
from trainwright.config.errors import FoundBad, UserError
from trainwright.storage.loading.packing import pack_store, verify_packings
from trainwright.storage.loading.training_data import TrainingData
from trainwright.storage.tokens import object_shards
from trainwright.storage.tokens.locations import locate
from trainwright.storage.tokens.objects import Unreadable
from trainwright.storage.tokens.reader import TokenStore, open_store
from trainwright.storage.tokens.shards import BadChunk
from trainwright.storage.tokens.tokenizer import open_tokenizer
from trainwright.storage.tokens.verify import verify_store

Make = Callable[..., Path]


def open_url(url: str) -> TokenStore:
    return open_store(locate(url))


def quiet(done: int, total: int) -> None:
    """Progress that shows nothing."""


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("wide", [False, True], ids=["u16", "u32"])
def test_the_same_tokens_as_in_a_folder(
    make_store: Make, s3: S3, rng: random.Random, compression: str, wide: bool, tmp_path: Path
) -> None:
    folder = make_store(compression=compression)
    local = open_store(folder)
    if wide:
        write_wide(local, tmp_path / "wide")
        local = open_store(folder := tmp_path / "wide")
    there = open_url(s3.upload(folder, "text/store.zarr"))
    assert there.info == local.info
    for length in (50, 5000):  # longer than two shards
        numbers = np.array(rng.choices(range((local.num_tokens - 1) // length), k=30))
        rows = np.array(rng.sample(range(40), k=30))
        for dtype in (there.info.numpy_dtype, np.int64):
            here, out = (np.full((40, length + 1), 7, dtype) for _ in range(2))
            there.will_need(numbers, out, rows)
            there.samples_into(numbers, out, rows)
            local.samples_into(numbers, here, rows)
            assert np.array_equal(out, here)
        assert np.array_equal(there.starts(numbers, length), local.starts(numbers, length))
    assert np.array_equal(there.read(0, there.num_tokens), local.read(0, local.num_tokens))
    there.close()


def test_what_is_predicted_comes_along(s3: S3, rng: random.Random, tmp_path: Path) -> None:
    folder = chat_store(tmp_path, rng)
    url = locate(s3.upload(folder, "chats.zarr"))
    assert verify_store(url, quiet) == verify_store(folder, quiet)
    places = [
        DataConfig.model_validate({"train": [{"store": str(each)}], "sequence_length": 16}) for each in (folder, url)
    ]
    here, there = (TrainingData.open(place).batch(0, 30) for place in places)
    assert np.array_equal(here.tokens, there.tokens)
    assert here.trained is not None
    assert there.trained is not None
    assert 0 < here.trained.sum() < here.tokens.size
    assert np.array_equal(here.trained, there.trained)
    s3.put("chats.zarr/loss_mask/c/0", flipped((folder / "loss_mask/c/0").read_bytes(), 2))
    with pytest.raises(BadChunk, match=f"^{url}/loss_mask/c/0: inner chunk 0 fails its crc32c"):
        verify_store(url, quiet)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_more_chunks_than_are_kept(
    make_store: Make, s3: S3, rng: random.Random, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_shards, "_POOL_BYTES", 0)
    folder = make_store(compression=compression, shard_tokens=1024)
    there = open_store(locate(s3.upload(folder, "few.zarr")), max_decoded=3)
    local = open_store(folder)
    for _ in range(3):
        numbers = np.array(rng.choices(range((local.num_tokens - 1) // 700), k=20))
        assert np.array_equal(there.samples(numbers, 700), local.samples(numbers, 700))


def test_verified_as_a_folder_is(make_store: Make, s3: S3) -> None:
    folder = make_store()
    pack_store(folder, 32)
    url = locate(s3.upload(folder, "a/b.zarr"))
    assert verify_store(url, quiet) == verify_store(folder, quiet)
    verify_packings(url)
    assert open_tokenizer(url).fingerprint() == open_tokenizer(folder).fingerprint()
    file = "packing/1/32/places/c/0"
    s3.put(f"a/b.zarr/{file}", flipped((folder / file).read_bytes(), 9))
    with pytest.raises(FoundBad, match=f"{url}/{file}: its digest"):
        verify_packings(url)


def flipped(content: bytes, place: int) -> bytes:
    place %= len(content)
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_damage_is_named(make_store: Make, s3: S3, rng: random.Random, compression: str) -> None:
    folder = make_store(compression=compression)
    url = s3.upload(folder, "bad.zarr")
    whole = (folder / "c/1").read_bytes()
    index_bytes = 16 * open_store(folder).info.chunks_per_shard + 4

    def message(content: bytes | None) -> str:
        if content is None:
            s3.delete("bad.zarr/c/1")
        else:
            s3.put("bad.zarr/c/1", content)
        store = open_url(url)
        with pytest.raises(FoundBad) as caught:
            store.read(0, store.num_tokens)
        with pytest.raises(FoundBad):
            verify_store(locate(url), quiet)
        with pytest.raises(FoundBad):
            store.read(2048, 2049)
        store.close()
        return str(caught.value)

    place = rng.randrange(len(whole) - index_bytes)
    said = message(flipped(whole, place))
    assert said.startswith(f"{url}/c/1: inner chunk ")
    assert "fails its crc32c" in said
    said = message(flipped(whole, -1 - rng.randrange(index_bytes)))
    assert said.startswith(f"{url}/c/1: its index fails its crc32c")
    cut = rng.randrange(1, len(whole))
    said = message(whole[:cut])
    assert said.startswith(f"{url}/c/1: ")
    assert "truncated" in said
    assert message(None).startswith(f"{url}/c/1: missing")


def test_a_bad_chunk_has_its_number(make_store: Make, s3: S3) -> None:
    folder = make_store(shard_tokens=1024)
    url = s3.upload(folder, "bad.zarr")
    s3.put("bad.zarr/c/2", flipped((folder / "c/2").read_bytes(), 3))
    store = open_url(url)
    with pytest.raises(BadChunk) as caught:
        store.read(2048, 2100)
    assert caught.value.chunk == 2 * store.info.chunks_per_shard
    s3.put("bad.zarr/c/2", (folder / "c/2").read_bytes())  # mended: what failed is asked for again
    assert np.array_equal(store.read(2048, 2100), open_store(folder).read(2048, 2100))


def test_a_store_that_is_not_there(s3: S3) -> None:
    with pytest.raises(UserError, match=rf"^s3://{BUCKET}/no.zarr: not a token store"):
        open_url(f"s3://{BUCKET}/no.zarr")
    with pytest.raises(Unreadable, match=r"^s3://absent/no.zarr/zarr.json: no such bucket"):
        open_url("s3://absent/no.zarr")


def test_credentials_are_asked_for_and_never_shown(make_store: Make, s3: S3) -> None:
    url = s3.upload(make_store(), "store.zarr")
    s3.demand_credentials()
    with pytest.raises(
        Unreadable, match=r"access refused \(the server said 403 Forbidden\); check credentials"
    ) as caught:
        open_url(url)
    assert str(caught.value).startswith(f"{url}/zarr.json")
    assert "not-in-any-log" not in str(caught.value)
    assert "a-key" not in str(caught.value)


def test_a_server_that_dies_is_named_with_shard_and_chunk(make_store: Make, s3: S3) -> None:
    folder = make_store(shard_tokens=1024)
    store = open_url(url := s3.upload(folder, "store.zarr"))
    before = store.read(0, 512)
    s3.stop()
    assert np.array_equal(store.read(0, 512), before)  # kept
    with pytest.raises(Unreadable) as caught:
        store.read(1024, 1100)
    assert str(caught.value).startswith(f"{url}/c/1: inner chunk 0 cannot be read (")
    assert "\n" not in str(caught.value)


def test_over_plain_http(make_store: Make, s3: S3) -> None:
    folder = make_store(compression="zstd")
    s3.upload(folder, "store.zarr")
    url = locate(f"{s3.endpoint}/{BUCKET}/store.zarr/")
    assert verify_store(url, quiet) == verify_store(folder, quiet)
    verify_packings(url)  # cannot be listed


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://user:word@bucket/x", "no user or password"),
        ("https://host/x?sig=word", r"no \? or #"),
        ("ftp://host/x", "not a place for stores"),
        ("s3:///", "names no bucket"),
    ],
)
def test_urls_that_are_refused(url: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        locate(url)
    assert "word@" not in str(caught.value)
    assert "sig=word" not in str(caught.value)


def test_an_earlier_generation_and_commands(
    make_store: Make, s3: S3, text_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_store(compression="zstd")
    assert main(["data", "append", str(text_folder / "part1"), str(folder)]) == 0
    url = s3.upload(folder, "grown/store.zarr")
    for generation in (1, 2):
        there, here = (open_store(locate(each), generation=generation) for each in (url, folder))
        assert np.array_equal(there.read(0, there.num_tokens), here.read(0, here.num_tokens))
    assert main(["data", "compare", url, str(folder)]) == 0
    answers = []
    for place in (url, str(folder)):
        (tmp_path / "run.yaml").write_text(_RUN.replace("STORE", place))
        capsys.readouterr()
        assert main(["data", "order", "--json", str(tmp_path / "run.yaml"), "--explain", "3", "--count", "5"]) == 0
        answers.append(json.loads(capsys.readouterr().out.replace(place, "STORE")))
    assert answers[0] == answers[1]


_RUN = """\
schema_version: 1
name: tiny
model: config.json
data: {train: [{store: "STORE", generation: 1}], sequence_length: 32}
train: {steps: 4, global_batch_size: 4}
"""


def test_without_obstore_one_line_says_what_to_install(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(UserError, match=r"^s3://corpora/other.zarr: .* pip install 'trainwright\[objects\]'"):
        open_url(f"s3://{BUCKET}/other.zarr")


def test_a_profile_that_is_not_there(s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(UserError, match=r"AWS_PROFILE=nobody: .*could not be found.*; check ~/.aws/config"):
        open_url(f"s3://{BUCKET}/store.zarr")
