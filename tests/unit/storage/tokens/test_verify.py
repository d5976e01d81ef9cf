"""Verification finds damage anywhere and names the file."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainwright.config.data import DataConfig, Source
from trainwright.config.errors import FoundBad
from trainwright.storage.loading.training_data import TrainingData
from trainwright.storage.tokens import store as store_module
from trainwright.storage.tokens.inventory import take_inventory, write_inventory
from trainwright.storage.tokens.locations import file_digest
from trainwright.storage.tokens.reader import open_store
from trainwright.storage.tokens.shards import ShardSummary
from trainwright.storage.tokens.verify import verify_store
from trainwright.storage.tokens.writer import DocumentWriter

from .test_reader import flip

Make = Callable[..., Path]


def check(path: Path) -> None:
    verify_store(path, lambda done, total: None)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_sound_store_passes(make_store: Make, compression: str) -> None:
    seen = []
    info = verify_store(make_store(compression=compression), lambda done, total: seen.append((done, total)))
    assert seen[-1] == (info.size_bytes, info.size_bytes)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_flipped_bit_anywhere_is_found_in_its_file(
    make_store: Make, tmp_path: Path, rng: random.Random, compression: str
) -> None:
    path = make_store(compression=compression)
    files = [file.relative_to(path) for file in sorted(path.rglob("*")) if file.is_file()]
    assert len(files) > 6
    for name in files:
        copy = tmp_path / "copy.zarr"
        shutil.copytree(path, copy)
        place = rng.randrange((copy / name).stat().st_size)
        print(name, place)
        flip(copy / name, place)
        with pytest.raises(Exception, match=str(name)) as caught:
            check(copy)
        # A bit of zarr.json may also turn it into something that is no store at all.
        assert isinstance(caught.value, FoundBad) or str(name) == "zarr.json"
        shutil.rmtree(copy)


@pytest.mark.parametrize("name", ["c/0", "c/2", "documents/c/0", "tokenizer/tokenizer.json", "inventory.json"])
def test_missing_and_truncated_files_are_named(make_store: Make, name: str) -> None:
    path = make_store()
    data = (path / name).read_bytes()
    (path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(FoundBad, match=f"{name}: truncated"):
        check(path)
    (path / name).unlink()
    with pytest.raises(FoundBad, match=f"{name}: missing"):
        check(path)


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Change attributes and inventory of a store so that all digests agree again: what a faulty writer would leave."""
    record = json.loads((path / "zarr.json").read_text())
    attributes = record["attributes"]["trainwright"]
    inventory = json.loads((path / "inventory.json").read_text())
    change(attributes, inventory)
    shards = []
    for shard in inventory["shards"]:
        size, digest = file_digest(path / shard["file"])
        shards.append(ShardSummary(**{**shard, "size_bytes": size, "digest": digest}))
    taken = take_inventory(path, tuple(shards), list(inventory["files"]))
    size, digest = write_inventory(path, taken)
    attributes["inventory"] |= {"size_bytes": size, "digest": digest}
    attributes.pop("metadata_sha256")
    attributes["metadata_sha256"] = store_module._digest(record)
    (path / "zarr.json").write_text(json.dumps(record))


def test_a_token_outside_the_vocabulary_is_found(make_store: Make) -> None:
    path = make_store()

    def shrink(attributes: dict[str, Any], inventory: dict[str, Any]) -> None:
        attributes["tokenizer"]["vocab_size"] = 290

    rewrite(path, shrink)
    with pytest.raises(FoundBad, match=r"c/0: token id \d+ is not below the vocabulary's 290"):
        check(path)


def test_a_wrong_histogram_is_found(make_store: Make) -> None:
    path = make_store()

    def miscount(attributes: dict[str, Any], inventory: dict[str, Any]) -> None:
        inventory["shards"][1]["histogram"]["distinct"] += 1

    rewrite(path, miscount)
    with pytest.raises(FoundBad, match=r"c/1: its tokens do not have the recorded histogram"):
        check(path)


@pytest.mark.parametrize(
    ("row", "value", "problem"),
    [(3, 1, "not ascending"), (0, 1, "not ascending"), (-1, 10**9, "not ascending"), (3, None, "does not end with")],
)
def test_an_inconsistent_document_index_is_found(make_store: Make, row: int, value: int | None, problem: str) -> None:
    path = make_store()
    store = open_store(path)
    starts = store.document_index.get(0, store.info.documents)
    starts[row] = starts[row] + 1 if value is None else value
    writer = DocumentWriter(path)
    writer.append(starts)
    writer.finish()
    rewrite(path, lambda attributes, inventory: None)
    with pytest.raises(FoundBad, match=f"documents/c/0: .*{problem}"):
        check(path)


def test_another_tokenizer_in_its_place_is_found(make_store: Make) -> None:
    path, other = make_store(), make_store("other.zarr", vocab_size=280)
    shutil.copy(other / "tokenizer" / "tokenizer.json", path / "tokenizer" / "tokenizer.json")
    rewrite(path, lambda attributes, inventory: None)
    with pytest.raises(FoundBad, match=r"tokenizer/tokenizer\.json: it is not the tokenizer"):
        check(path)
    data = TrainingData.open(DataConfig(train=[Source(store=str(path))], sequence_length=64))
    with pytest.raises(FoundBad, match=r"tokenizer/tokenizer\.json: it is not the tokenizer"):
        data.check_files()  # as `submit` does
