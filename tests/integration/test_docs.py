"""Every command of the documentation, run for real, page after page, in one folder that looks like a checkout."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard

from trainwright.config.model_reader import read_model
from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.checkpoints.tensor_names import tensor_shapes

from ..docs_pages import DOCS, ROOT, Command, TextFile, is_printed, read_page
from ..unit.storage.building.inputs.files import write_pair
from ..unit.storage.chats import write_tokenizer
from .real_runs import WHOLE

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(900)]

_COPIED = ("config", "storage", "tracking", "launchers", "serving", "cli", "presets", "examples")
_PAGES = {page.relative_to(DOCS).as_posix(): read_page(page) for page in sorted(DOCS.rglob("*.md"))}
_RUN = [page for page, items in _PAGES.items() if any(isinstance(item, Command) and not item.reason for item in items)]
_LONG = ("sweeps.md", "deepspeed.md", "evaluation.md", "checkpoint.md", "verify-layout.md", "fine-tuning.md")
_OTHERS = [page for page in _RUN if page not in ("day.md", "cluster.md")]


@dataclass(frozen=True)
class Reader:
    """Somebody who types what the pages say."""

    folder: Path
    home: Path
    cluster: Path

    def follow(self, page: str) -> None:
        """Write the page's files and run its commands, in order; fails at the first that is not as the page says."""
        for item in read_page(DOCS / page):
            if isinstance(item, TextFile):
                self._write(item)
            elif not item.reason:
                self._run(item)

    def tidy(self) -> None:
        """End what a page that failed has left: endpoint, runs, cluster."""
        for command in ("serve --stop myrun", "cancel myrun", "cancel moe", "cluster dev down"):
            self._bash(f"trainwright {command}")

    def _write(self, file: TextFile) -> None:
        path = self.home / file.name[2:] if file.name.startswith("~/") else self.folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text)

    def _run(self, command: Command) -> None:
        done = self._bash(command.text)
        said = f"{command.place}: $ {command.text}\n{done.stdout[-6000:]}"
        print(said)
        assert done.returncode == 0, f"exit code {done.returncode}: {said}"
        assert not command.printed or is_printed(command.printed, done.stdout), f"{said}\nthe page:\n{command.printed}"

    def _bash(self, text: str) -> "subprocess.CompletedProcess[str]":
        """stdout has stderr in it."""
        return subprocess.run(
            ["bash", "-c", text],
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("LANG", "PYTHONPATH") if name in os.environ}
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        return {**kept, "PATH": path, "HOME": str(self.home), "TRAINWRIGHT_DEV_CLUSTER": str(self.cluster)}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """In a folder with the parts of a checkout that the pages use."""
    place = tmp_path_factory.mktemp("docs")
    folder, home = place / "checkout", place / "home"
    for part in _COPIED:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    home.mkdir()
    write_own_files(folder)
    reader = Reader(folder, home, Path("/tmp") / f"trainwright-docs-cluster-{os.getpid()}")
    yield reader
    reader.tidy()


def write_own_files(folder: Path) -> None:
    """What the pages take for files that a reader has: texts in several formats, token ids and their tokenizer."""
    texts = ["def first():\n    return 1\n" * 9, "The second text, of other words.\n" * 9]
    records = [{"text": text, "content": text} for text in texts]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "part-1.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    pyarrow.parquet.write_table(pa.Table.from_pylist(records), folder / "wiki.parquet")
    (folder / "notes").mkdir()
    (folder / "notes" / "note.txt").write_text(texts[1])
    build_store([folder / "notes"], folder / "old.zarr", BuildOptions(vocab_size=260), lambda *_: None)
    shutil.copytree(folder / "old.zarr" / "tokenizer", folder / "path" / "to" / "tokenizer")
    shutil.rmtree(folder / "old.zarr")
    write_tokenizer(folder / "fim-tokenizer")
    _write_theirs(folder)
    write_pair(folder / "corpus_text_document", [[[70, 71, 72]], [[80, 81]]])


def _write_theirs(folder: Path) -> None:
    """A checkpoint of somebody else's training script."""
    import torch
    from torch.distributed.checkpoint.state_dict_saver import save

    shapes = tensor_shapes(read_model(folder / "presets" / "tiny-llama"))
    tensors = {name: torch.ones(shape) for name, shape in shapes.items()}
    save({"model": tensors}, checkpoint_id=folder / "theirs", no_dist=True)


@pytest.fixture(scope="module")
def after_the_day(reader: Reader) -> Reader:
    """The first page's store, run and export are there."""
    reader.follow("day.md")
    return reader


@pytest.mark.vllm
def test_a_day(after_the_day: Reader) -> None:
    """Text to endpoint; the README's day is the same commands (tests/unit/test_docs.py)."""
    assert (after_the_day.folder / "exported" / "myrun" / "model.safetensors").is_file()


@pytest.mark.parametrize("page", [page for page in _OTHERS if WHOLE or page not in _LONG])
def test_other_pages(after_the_day: Reader, page: str) -> None:
    after_the_day.follow(page)


@pytest.mark.slurm
def test_on_slurm(after_the_day: Reader) -> None:
    """On a dev cluster that the page itself starts and ends."""
    after_the_day.follow("cluster.md")
    assert not after_the_day.cluster.exists()
