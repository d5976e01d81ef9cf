"""How shards are read depends on where they lie."""

from collections.abc import Callable
from pathlib import Path

import pytest

from trainwright.storage.tokens import filesystem
from trainwright.storage.tokens.filesystem import choose_how
from trainwright.storage.tokens.mounts import filesystem_of, is_local
from trainwright.storage.tokens.reader import TokenStore

Make = Callable[..., Path]
MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:27 / {0} rw shared:2 - lustre server:/work rw
31 30 0:28 / {0}/my\\040disk rw shared:3 - nfs4 other:/home rw
32 22 0:29 / {0}er rw shared:4 - fuse.sshfs host: rw
"""


def test_the_longest_mount_point_counts(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.format(tmp_path / "data"))
    for place, expected in (
        ("data/store.zarr", "lustre"),
        ("data", "lustre"),
        ("data/my disk/store.zarr", "nfs4"),
        ("dataer/x", "fuse.sshfs"),
        ("other", "ext4"),
    ):
        assert filesystem_of(tmp_path / place, mounts) == expected
    assert filesystem_of(tmp_path, tmp_path / "none") == "unknown"
    assert filesystem_of(Path("/proc/self")) == "proc"


def test_a_local_disk_is_mapped_without_measuring(make_store: Make) -> None:
    place = choose_how(make_store())
    assert (place.how, place.map_ms, place.plain_ms) == ("map", None, None)
    assert is_local(place.filesystem)


@pytest.mark.parametrize(("slow", "expected"), [("map", "plain"), ("plain", "map")])
def test_a_shared_one_is_measured(make_store: Make, monkeypatch: pytest.MonkeyPatch, slow: str, expected: str) -> None:
    touch = filesystem._touch
    shards = {"map": "ShardMap", "plain": "ShardReads"}

    def slower(store: TokenStore, chunk: int) -> float:
        took = touch(store, chunk)
        return took + (0.1 if type(store._shards).__name__ == shards[slow] else 0)

    monkeypatch.setattr(filesystem, "filesystem_of", lambda path: "lustre")
    monkeypatch.setattr(filesystem, "_touch", slower)
    path = make_store()
    place = choose_how(path)
    assert place.how == expected
    assert place.map_ms is not None
    assert place.plain_ms is not None
    assert not is_local(place.filesystem)
    assert choose_how(make_store("zstd.zarr", compression="zstd")).map_ms is None  # there is one way only
