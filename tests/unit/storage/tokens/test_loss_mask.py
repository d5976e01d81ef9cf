"""The loss mask of a store: opened by other readers, checked to the last byte, repaired, appended to, carried along."""

import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import zarr

from trainwright.cli.main import main
from trainwright.config.errors import FoundBad, UserError
from trainwright.storage.building.append import append_store
from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.features.importing import ImportOptions, import_features
from trainwright.storage.features.records import RowOptions
from trainwright.storage.features.select import Question, select_documents
from trainwright.storage.features.selected_store import write_selected_store
from trainwright.storage.features.times import parse_time
from trainwright.storage.tokens.hdf5_export import export_hdf5
from trainwright.storage.tokens.reader import open_store
from trainwright.storage.tokens.repair import repair_store
from trainwright.storage.tokens.store import read_info
from trainwright.storage.tokens.verify import check_presence, verify_store

from ..building.test_append import run as append_apart
from ..chats import chat_store, draw_chat, write_chats
from ..conftest import quiet
from .test_reader import flip
from .test_verify import rewrite


def mask_of(path: Path) -> list[int]:
    mask = open_store(path).loss_mask
    assert mask is not None
    return [int(each) for each in mask.read(0, read_info(path).tokens)]


def verify(path: Path) -> None:
    verify_store(path, lambda done, total: None)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_any_zarr_reader_opens_it(tmp_path: Path, rng: random.Random, compression: str) -> None:
    path = chat_store(tmp_path, rng, compression=compression)
    expected = mask_of(path)
    assert sum(expected) == read_info(path).trained_tokens
    assert 0 < sum(expected) < len(expected)
    found = zarr.open_array(path / "loss_mask", mode="r")
    assert (found.dtype.name, found.shards, found.chunks) == ("uint8", (2048,), (2048,))
    assert found[:].tolist() == expected
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / "loss_mask")}}
    assert tensorstore.open(spec, open=True).result().read().result().tolist() == expected
    verify(path)


def test_a_store_of_texts_has_none(make_store: Callable[..., Path]) -> None:
    path = make_store()
    assert open_store(path).loss_mask is None
    assert not (path / "loss_mask").exists()
    assert "mask" not in (path / "zarr.json").read_text() + (path / "inventory.json").read_text()


def test_damage_is_named_by_file_and_chunk(tmp_path: Path, rng: random.Random) -> None:
    path = chat_store(tmp_path, rng, count=400, shard_tokens=1 << 15)  # two chunks in a shard
    assert read_info(path).chunks_per_shard == 2
    good = tmp_path / "good.zarr"
    shutil.copytree(path, good)
    flip(path / "loss_mask" / "c" / "0", 0)
    with pytest.raises(FoundBad, match=r"loss_mask/c/0: inner chunk 0 fails its crc32c"):
        verify(path)
    assert repair_store(path, good, lambda *_: None) == ["loss_mask/c/0"]
    verify(path)
    for name in ("loss_mask/c/0", "loss_mask/zarr.json"):
        size = (path / name).stat().st_size
        place = rng.randrange(size)
        print(name, place)
        flip(path / name, place)
        with pytest.raises(FoundBad, match=name):
            verify(path)
        shutil.copy(good / name, path / name)
        (path / name).write_bytes((good / name).read_bytes()[:-1])
        with pytest.raises(FoundBad, match=f"{name}: truncated"):
            check_presence(open_store(path))
        (path / name).unlink()
        with pytest.raises(FoundBad, match=f"{name}: missing"):
            check_presence(open_store(path))
        assert repair_store(path, good, lambda *_: None) == [name]
    verify(path)


def test_what_a_faulty_writer_would_leave_is_found(tmp_path: Path, rng: random.Random) -> None:
    path = chat_store(tmp_path, rng)
    rewrite(path, lambda attributes, inventory: attributes["loss_mask"].update(trained_tokens=5))
    with pytest.raises(FoundBad, match=r"loss_mask: \d+ tokens are trained, not 5 as zarr.json says"):
        verify(path)
    array = zarr.open_array(path / "loss_mask", mode="r+")
    array[7] = 2
    rewrite(path, lambda attributes, inventory: None)
    with pytest.raises(FoundBad, match=r"loss_mask/c/0: value 2 is neither 0 nor 1"):
        verify(path)


def test_it_grows_with_the_store(tmp_path: Path, rng: random.Random) -> None:
    path = chat_store(tmp_path, rng)
    first, tokens = mask_of(path), read_info(path).tokens
    more = write_chats(tmp_path / "more.jsonl", [draw_chat(rng) for _ in range(60)])
    (tmp_path / "plain.txt").write_text("hello world " * 500)
    append_store([more], path, BuildOptions(chat=True, workers=1), (quiet, print))
    second = mask_of(path)
    assert second[:tokens] == first
    append_store([tmp_path / "plain.txt"], path, BuildOptions(workers=1), (quiet, print))
    info = read_info(path)
    assert mask_of(path) == [*second, *[1] * (info.tokens - len(second))]
    assert info.trained_tokens == sum(mask_of(path))
    assert sum(mask_of(path)) > sum(second) > sum(first)
    verify(path)
    earlier = open_store(path, generation=1)
    assert earlier.loss_mask is not None
    assert earlier.loss_mask.read(0, tokens).tolist() == first
    # The same documents at once give the same mask, whatever happened on the way.
    together = tmp_path / "both.jsonl"
    together.write_text((tmp_path / "chat.jsonl").read_text() + more.read_text())
    options = BuildOptions(tokenizer=path / "tokenizer", chat=True, shard_tokens=2048, workers=1)
    build_store([together], tmp_path / "both.zarr", options, quiet)
    assert mask_of(tmp_path / "both.zarr") == second


def test_chats_are_not_added_to_a_store_without_a_mask(tmp_path: Path, rng: random.Random) -> None:
    chats = chat_store(tmp_path, rng)
    (tmp_path / "plain.txt").write_text("hello world " * 50)
    plain = tmp_path / "plain.zarr"
    build_store([tmp_path / "plain.txt"], plain, BuildOptions(tokenizer=chats / "tokenizer"), quiet)
    with pytest.raises(UserError, match=r"has no loss mask, .*; build a store of it, and name both in data\.train"):
        append_store([tmp_path / "chat.jsonl"], plain, BuildOptions(chat=True, workers=1), (quiet, print))
    verify(plain)
    assert read_info(plain).generation == 1


def test_through_hdf5_and_back(tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainwright.storage.building.parts.MIN_PART_BYTES", 3000)
    path = chat_store(tmp_path, rng, shard_tokens=4096)
    file = tmp_path / "a.h5"
    export_hdf5(path, file, lambda *_: None)
    build_store([file], tmp_path / "back.zarr", BuildOptions(shard_tokens=4096, workers=1), quiet)
    verify(tmp_path / "back.zarr")
    assert mask_of(tmp_path / "back.zarr") == mask_of(path)
    for name in ("zarr.json", "inventory.json", "c/0", "loss_mask/c/0"):
        assert (path / name).read_bytes() == (tmp_path / "back.zarr" / name).read_bytes(), name
    import h5py

    with h5py.File(file, "r+") as opened:
        opened["loss_mask"][3] = 7
    with pytest.raises(UserError, match=r"a\.h5: loss_mask: value 7 is neither 0 nor 1"):
        build_store([file], tmp_path / "bad.zarr", BuildOptions(workers=1), quiet)


def test_duplicates_go_with_their_mask(tmp_path: Path, rng: random.Random) -> None:
    chats = [draw_chat(rng) for _ in range(80)]
    source = write_chats(tmp_path / "twice.jsonl", [chat for pair in zip(chats, chats, strict=True) for chat in pair])
    once = chat_store(tmp_path, rng)
    options: dict[str, Any] = {"tokenizer": once / "tokenizer", "chat": True, "shard_tokens": 2048, "workers": 1}
    build_store([source], tmp_path / "a.zarr", BuildOptions(deduplicate="exact", **options), quiet)
    build_store([write_chats(tmp_path / "b.jsonl", chats)], tmp_path / "b.zarr", BuildOptions(**options), quiet)
    assert np.array_equal(mask_of(tmp_path / "a.zarr"), mask_of(tmp_path / "b.zarr"))
    verify(tmp_path / "a.zarr")


def test_a_selected_store_keeps_its_documents_masks(tmp_path: Path, rng: random.Random) -> None:
    path = chat_store(tmp_path, rng)
    lines = [{"text": "hello", "event_time": "2026-01-01", "quality": 0.5}]
    (tmp_path / "values.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ImportOptions(rows=RowOptions(by_text=True), store=path)
    import_features([tmp_path / "values.jsonl"], tmp_path / "f.db", options, lambda *_: None)
    selection = select_documents(path, tmp_path / "f.db", Question(parse_time("2026-08-01"), "quality is None", "2"))
    info = write_selected_store(path, selection, tmp_path / "new.zarr", lambda *_: None)
    assert mask_of(tmp_path / "new.zarr") == mask_of(path) * 2
    assert info.trained_tokens == 2 * sum(mask_of(path))
    verify(tmp_path / "new.zarr")


def test_commands_tell_the_share(tmp_path: Path, rng: random.Random, capsys: pytest.CaptureFixture[str]) -> None:
    path = chat_store(tmp_path, rng)
    assert main(["data", "inspect", str(path), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["trained_tokens"] == sum(mask_of(path))
    assert record["trained_share"] == round(sum(mask_of(path)) / len(mask_of(path)), 4)
    more = write_chats(tmp_path / "more.jsonl", [draw_chat(rng)])
    assert main(["data", "append", "--chat", str(more), str(path)]) == 0
    template = ["--chat", "--chat-template", "chatml", "--tokenizer", str(tmp_path / "tokenizer")]
    assert main(["data", "build", *template, str(more), str(tmp_path / "c.zarr")]) == 0
    assert "% of the tokens trained" in capsys.readouterr().out
    assert main(["data", "verify", str(path)]) == 0


def test_an_append_that_was_killed_loses_no_mask(
    tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = chat_store(tmp_path, rng, count=100)
    more = write_chats(tmp_path / "more.jsonl", [draw_chat(rng) for _ in range(40)])
    wanted, path = tmp_path / "wanted.zarr", tmp_path / "s.zarr"
    shutil.copytree(first, wanted)
    synced: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", synced.append)
        append_store([more], wanted, BuildOptions(chat=True, workers=1), (quiet, print))
    masks = {1: mask_of(first), 2: mask_of(wanted)}
    last = len(synced) - 1
    for step in (rng.randrange(3, last - 8), rng.randrange(last - 8, last)):  # the later ones replace files
        print("step", step, "of", last)
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(first, path)
        assert append_apart(step, "--chat", more, path).returncode == -signal.SIGKILL
        assert mask_of(path) == masks[read_info(path).generation]
        again = append_apart(-1, "--chat", more, path)
        assert again.returncode == 0, again.stderr
        assert mask_of(path) == masks[2]
        verify(path)
