"""Forty ways in which a newest checkpoint can be damaged: it is set aside and named, and the one before is used."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch.distributed as dist

from trainwright.config.loading import load_frozen
from trainwright.config.model_reader import read_model
from trainwright.config.rundir import RunDir
from trainwright.parallelism.ranks import Rank
from trainwright.parallelism.resume import find_start
from trainwright.storage.loading.training_data import TrainingData

from .real_runs import LAYOUTS, Model, make_project, train

pytestmark = pytest.mark.ranks
Damage = Callable[[Path], None]
_DATA = [f"rank-{rank:05d}.safetensors" for rank in (0, 1)]
_INDEX = [f"rank-{rank:05d}.json" for rank in (0, 1)]
_MANIFEST = "manifest.json"


def bytes_of(change: Callable[[bytes], bytes]) -> Damage:
    """Another content."""

    def damage(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return damage


def flipped(place: float) -> Damage:
    """One bit, at a share of the length."""

    def change(content: bytes) -> bytes:
        at = min(int(place * len(content)), len(content) - 1)
        return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]

    return bytes_of(change)


def zeroed(content: bytes) -> bytes:
    """A block of the file system that was never written."""
    at = len(content) // 2
    return content[:at] + bytes(min(512, len(content) - at)) + content[at + 512 :]


def swapped(path: Path) -> None:
    """The other rank's file under this one's name."""
    other = path.with_name(path.name.replace("00000", "x").replace("00001", "00000").replace("x", "00001"))
    shutil.copy(other, path)


def field(name: str, change: Callable[[object], object]) -> Damage:
    """A field of the manifest with another value, in otherwise sound JSON."""

    def damage(path: Path) -> None:
        record = json.loads(path.read_text())
        record[name] = change(record[name])
        path.write_text(json.dumps(record))

    return damage


def without_a_file(path: Path) -> None:
    record = json.loads(path.read_text())
    del record["files"][_DATA[0]]
    path.write_text(json.dumps(record))


OF_DATA: dict[str, Damage] = {
    "last byte lost": bytes_of(lambda content: content[:-1]),
    "half lost": bytes_of(lambda content: content[: len(content) // 2]),
    "empty": bytes_of(lambda _: b""),
    "first bit": flipped(0),
    "bit of the header": flipped(0.001),
    "bit in the middle": flipped(0.5),
    "last bit": flipped(1),
    "a byte more": bytes_of(lambda content: content + b"\0"),
    "zeros": bytes_of(zeroed),
    "missing": Path.unlink,
    "other rank's": swapped,
}
OF_INDEX = {name: OF_DATA[name] for name in ("half lost", "empty", "bit in the middle", "missing", "other rank's")}
OF_MANIFEST: dict[str, Damage] = {
    "half lost": OF_DATA["half lost"],
    "empty": OF_DATA["empty"],
    "no JSON": bytes_of(lambda _: b"manifest"),
    "a list": bytes_of(lambda _: b"[]"),
    "other step": field("step", lambda step: int(str(step)) + 1),
    "other position": field("position", lambda position: int(str(position)) - 1),
    "other optimizer steps": field("scalars", lambda scalars: {**dict(scalars), "optimizer_steps": 1}),  # type: ignore[call-overload]
    "other tensors": field("tensors", lambda tensors: dict([*dict(tensors).items()][1:])),  # type: ignore[call-overload]
    "a file not named": without_a_file,
    "later format": field("format_version", lambda _: 99),
}
WAYS = {
    **{f"{file}: {name}": (file, damage) for file in _DATA for name, damage in OF_DATA.items()},
    **{f"{file}: {name}": (file, damage) for file in _INDEX for name, damage in OF_INDEX.items()},
    **{f"{_MANIFEST}: {name}": (_MANIFEST, damage) for name, damage in OF_MANIFEST.items()},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Six steps on two ranks, saved after 3 and 6."""
    project = make_project(tmp_path_factory.mktemp("corrupt"), Model("llama", tied=False))
    return train(project, "run", ["train.steps=6", "checkpoint.every_steps=3", *LAYOUTS["dp2"]])


def test_forty_ways() -> None:
    assert len(WAYS) >= 40


@pytest.mark.parametrize("way", WAYS)
def test_the_one_before_is_used(trained: RunDir, way: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(trained.path, tmp_path / "run", symlinks=True)
    run, (file, damage) = RunDir(tmp_path / "run"), WAYS[way]
    before = (run.checkpoint(6) / file).read_bytes()
    damage(run.checkpoint(6) / file)
    damaged = run.checkpoint(6) / file
    assert not damaged.exists() or damaged.read_bytes() != before
    config = load_frozen(run.run_yaml)
    alone = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=alone, rank=0, world_size=1)
    try:
        found = find_start(config, run, read_model(run.model_config), TrainingData.open(config.data), Rank(0, 1, 0))
    finally:
        dist.destroy_process_group()
    assert found is not None
    assert found.folder == run.checkpoint(3)
    assert found.manifest.step == 3
    assert not run.checkpoint(6).exists()
    aside = run.checkpoints / "step-00000006.corrupt-1"
    assert aside.is_dir()
    said = capfd.readouterr().err
    assert f"is corrupt and was set aside as {aside.name}" in said
    assert file in said
