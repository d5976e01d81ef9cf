"""Every path in the folder in which a store is built, and the small files there that say what is done."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..durable import sync, write_durably

PLAN = "plan.json"


@dataclass(frozen=True)
class Workspace:
    """The folder `.STORE.building`."""

    folder: Path

    @property
    def plan(self) -> Path:
        return self.folder / PLAN

    @property
    def tokenizer(self) -> Path:
        """Folder of the tokenizer's files."""
        return self.folder / "tokenizer"

    @property
    def store(self) -> Path:
        """The store as it grows; renamed at the end."""
        return self.folder / "store"

    @property
    def layout(self) -> Path:
        """What was decided when all parts were there."""
        return self.folder / "layout.json"

    @property
    def errors(self) -> Path:
        """Folder of what stopped workers elsewhere."""
        return self.folder / "errors"

    @property
    def jobs(self) -> Path:
        """Which jobs of a cluster are at work."""
        return self.folder / "jobs.json"

    @property
    def jobs_folder(self) -> Path:
        """Scripts, logs and results of jobs of a cluster."""
        return self.folder / "jobs"

    @property
    def result(self) -> Path:
        """What the last of these jobs built."""
        return self.jobs_folder / "result.json"

    def part(self, number: int) -> Path:
        """Tokens, lengths and hashes of a part."""
        return self.folder / "parts" / f"{number:06}.part"

    def part_summary(self, number: int) -> Path:
        """What is known of a whole part; stays when the part itself is no longer needed."""
        return self.folder / "parts" / f"{number:06}.json"

    def dropped(self, number: int) -> Path:
        """Which documents of a part are dropped, if any are: one bit each."""
        return self.folder / "dropped" / f"{number:06}.bits"

    def shard_summary(self, number: int) -> Path:
        """What is known of a whole shard."""
        return self.folder / "shards" / f"{number:06}.json"

    def make(self) -> None:
        """Make the folders that are missing."""
        for name in ("parts", "dropped", "shards", "errors", "tokenizer"):
            (self.folder / name).mkdir(exist_ok=True)


def beside(path: Path) -> Path:
    """Where a file is written before it is renamed: no two processes, on whatever machine, share it."""
    return path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")


def publish(written: Path, path: Path) -> None:
    """Rename a file that is durable, and make its new name so."""
    written.rename(path)
    sync(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file, durably, whole or not at all, and make its name so."""
    write_durably(path, data)
    sync(path.parent)


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write JSON with a digest of itself, whole or not at all."""
    text = json.dumps(record)
    write_whole(path, f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}\n".encode())


def read_record(path: Path) -> dict[str, Any] | None:
    """What write_record wrote, or None if it is missing or damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, _, text = data.partition(b"\n")
    text = text.removesuffix(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != digest:
        return None
    record: dict[str, Any] = json.loads(text)
    return record


def plan_digest(space: Workspace) -> str:
    """A digest of the plan, which parts carry; empty if there is none."""
    try:
        with space.plan.open("rb") as file:
            return file.readline().decode("ascii", "replace").strip()
    except FileNotFoundError:
        return ""
