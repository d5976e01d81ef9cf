"""Stores are copied to a node's own disk once, whatever is killed or damaged, and read from there."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.s3_server import S3
from tests.unit.storage.tokens.test_reader import flip
from trainwright.config.data import DataConfig
from trainwright.config.errors import UserError
from trainwright.storage.loading import staging
from trainwright.storage.loading.copying import contents_of
from trainwright.storage.loading.packing import pack_store, packings_of, verify_packings
from trainwright.storage.loading.staging import Stager, stage_stores, staged_bytes
from trainwright.storage.loading.training_data import TrainingData
from trainwright.storage.tokens.verify import verify_store

Make = Callable[..., Path]


def config(stage: Path | str, *stores: object, **fields: object) -> DataConfig:
    train = [{"store": str(store), "generation": 1} for store in stores]
    return DataConfig.model_validate({"train": train, "sequence_length": 32, "stage_to": str(stage), **fields})


def staged_place(data: DataConfig, number: int = 0) -> Path:
    return Path(data.train[number].store)


def run_rank(data: DataConfig) -> "subprocess.Popen[str]":
    """A process that stages, as a rank does."""
    code = (
        "import sys; from trainwright.config.data import DataConfig\n"
        "from trainwright.storage.loading.staging import stage_stores, say_on_stderr\n"
        "print(stage_stores(DataConfig.model_validate_json(sys.argv[1]), say_on_stderr).train[0].store)"
    )
    command = [sys.executable, "-c", code, data.model_dump_json()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_one_copy_for_all_ranks_of_a_node(make_store: Make, s3: S3, tmp_path: Path) -> None:
    store = make_store()
    data = config(tmp_path / "disk", s3.upload(store, "store.zarr"))
    ranks = [run_rank(data) for _ in range(3)]
    said = [rank.communicate(timeout=60) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * 3, said
    (place,) = {out for out, _ in said}
    assert sorted("copied to" in err for _, err in said) == [False, False, True]
    assert sum("is whole, and used again" in err for _, err in said) == 2
    assert verify_store(Path(place.strip()), lambda *_: None).tokens > 0


def test_the_same_batches_from_the_copy(make_store: Make, s3: S3, tmp_path: Path) -> None:
    for packing, more in (("split", {}), ("best_fit", {"compression": "zstd"})):
        store = make_store(f"{packing}.zarr", **more)
        pack_store(store, 32)
        url = s3.upload(store, f"{packing}.zarr")
        given = config(tmp_path / "disk", url, packing=packing)
        stages = [{"weights": {packing: 1}}]  # the copy keeps the store's name
        there = given.model_copy(update={"stages": config("/x", url, stages=stages).stages})
        copied = stage_stores(there, print)
        assert staged_place(copied).is_relative_to(tmp_path / "disk")
        batches = [
            TrainingData.open(data).batch(3, 20) for data in (copied, there, config("/x", store, packing=packing))
        ]
        for batch in batches[1:]:
            assert np.array_equal(batch.tokens, batches[0].tokens)
            assert np.array_equal(batch.starts, batches[0].starts)
        size = sum(path.stat().st_size for path in staged_place(copied).rglob("*") if path.is_file())
        assert staged_bytes(given) == size


def test_an_index_made_later_is_added_to_the_copy(make_store: Make, tmp_path: Path) -> None:
    store = make_store()
    place = staged_place(stage_stores(config(tmp_path / "disk", store), print))
    before = (place / "c/0").stat().st_ino
    pack_store(store, 32)
    assert staged_place(stage_stores(config(tmp_path / "disk", store, packing="best_fit"), print)) == place
    verify_packings(place)
    assert packings_of(place) == [(1, 32)]
    assert (place / "c/0").stat().st_ino == before


def test_a_kill_in_the_middle_and_another_start(make_store: Make, rng: random.Random, tmp_path: Path) -> None:
    store, data = make_store(shard_tokens=1024), config(tmp_path / "disk", tmp_path / "store.zarr")
    for _ in range(3):
        rank = run_rank(data)
        deadline = time.monotonic() + rng.uniform(0.0, 20.0)
        home = tmp_path / "disk" / f"trainwright-{os.getuid()}"
        wanted = rng.randrange(1, len(list((store / "c").iterdir())))
        while rank.poll() is None and time.monotonic() < deadline:
            if sum(1 for _ in home.glob(".*.copying/c/*")) >= wanted:
                break
        rank.send_signal(signal.SIGKILL)
        rank.communicate()
        if published := list(home.glob("store*")):
            verify_store(published[0], lambda *_: None)
    copied = stage_stores(data, print)
    assert verify_store(staged_place(copied), lambda *_: None) == verify_store(store, lambda *_: None)


def test_a_damaged_copy_is_set_aside_and_made_again(make_store: Make, rng: random.Random, tmp_path: Path) -> None:
    store = make_store()
    data = config(tmp_path / "disk", store)
    place = staged_place(stage_stores(data, print))
    shard = place / "c" / "1"

    def index_is_flipped() -> None:
        flip(shard, -1 - rng.randrange(20))

    def shard_is_cut() -> None:
        os.truncate(shard, rng.randrange(shard.stat().st_size))

    def shard_is_gone() -> None:
        shard.unlink()

    def index_of_documents_is_flipped() -> None:
        flip(place / "documents/c/0", 3)

    def metadata_is_gone() -> None:
        (place / "zarr.json").unlink()

    damages = (index_is_flipped, shard_is_cut, shard_is_gone, index_of_documents_is_flipped, metadata_is_gone)
    for number, damage in enumerate(damages):
        damage()
        said: list[str] = []
        assert staged_place(stage_stores(data, said.append)) == place
        assert "set aside as" in said[0]
        assert verify_store(place, lambda *_: None) == verify_store(store, lambda *_: None)
        assert len(list(place.parent.glob("*.damaged-*"))) == number + 1
    said = []
    stage_stores(data, said.append)
    assert said == [f"{store}: the copy in {place} is whole, and used again"]


def test_other_copies_are_left_and_named(make_store: Make, tmp_path: Path) -> None:
    one, other = make_store("one.zarr"), make_store("other.zarr")
    place = staged_place(stage_stores(config(tmp_path / "disk", one), print))
    said: list[str] = []
    stage_stores(config(tmp_path / "disk", other), said.append)
    assert said[0].endswith(f"; {place.parent} also has {place.name}, which are left")
    assert place.exists()


def test_who_waits_says_so_and_gives_up(make_store: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_SAY_EVERY_S", 0.2)
    monkeypatch.setattr(staging, "_POLL_S", 0.05)
    store = locate_and_name(make_store(), tmp_path)
    said: list[str] = []
    with Stager(tmp_path, print)._locked(store):
        (tmp_path / f".{store.name}.lock").write_text("copy, 1.00 of 2.00 GB")
        with pytest.raises(UserError, match=r"^data\.stage_to: another process .* nothing came for"):
            Stager(tmp_path, said.append, stall_s=1.0).stage(tmp_path / "store.zarr", [])
    assert said
    assert said[0] == f"waiting for another rank of this node: {store.name}: copy, 1.00 of 2.00 GB"


def locate_and_name(store: Path, folder: Path) -> Path:
    return folder / staging.staged_name(store, contents_of(store))


def test_a_disk_that_refuses(make_store: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store()
    monkeypatch.setenv("NAME", "relative")
    for stage, words in (
        ("$NO_SUCH_VARIABLE/x", "needs a variable that is not set on"),
        ("$NAME/x", "give an absolute path"),
        ("/proc/x", "/proc/x"),
    ):
        with pytest.raises(UserError, match=r"^data\.stage_to: ") as caught:
            stage_stores(config(stage, store), print)
        assert words in str(caught.value)
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500));"
    rank = [sys.executable, "-c", code + _STAGE, config(tmp_path / "disk", store).model_dump_json()]
    done = subprocess.run(rank, capture_output=True, text=True, timeout=60)
    assert "data.stage_to: " in done.stderr
    assert "File too large; give a folder with enough room" in done.stderr


_STAGE = (
    "import sys; from trainwright.config.data import DataConfig\n"
    "from trainwright.storage.loading.staging import stage_stores\n"
    "try: stage_stores(DataConfig.model_validate_json(sys.argv[1]), print)\n"
    "except ValueError as error: sys.exit(str(error))"
)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to mount a small disk")
def test_a_disk_that_is_too_small(make_store: Make, tmp_path: Path) -> None:
    store, disk = make_store(), tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(UserError, match=rf"^{disk}/trainwright-0: [0-9,]+ bytes are free, and 6[0-9,]+ are needed"):
            stage_stores(config(disk, store), print)
        assert not list(disk.glob("trainwright-0/store*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
