"""`data features` as a user types it: one JSON object, text, exit codes; and a selected store in a mixture."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainwright.cli.main import main
from trainwright.config.data import DataConfig, Source
from trainwright.storage.features.selection import read_selection
from trainwright.storage.loading.training_data import TrainingData
from trainwright.storage.tokens.reader import open_store


@pytest.fixture
def project(make_store: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with store.zarr, of three texts, and values.jsonl, of two of them."""
    texts = [f"text number {number} of a few words" * 20 for number in range(3)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    make_store("store.zarr", tmp_path / "texts.jsonl")
    records = [{"text": text, "event_time": "2026-01-01", "quality": 0.5} for text in texts[:2]]
    records.append({"text": texts[0], "event_time": "2026-02-01", "quality": 0.9})
    (tmp_path / "values.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def said(project: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command with --json, and gives the object that it prints."""

    def run(command: str, code: int = 0) -> Any:
        capsys.readouterr()
        try:
            found = main(["data", "features", *command.split(), "--json"])
        except SystemExit as end:
            found = int(end.code or 0)
        out = capsys.readouterr().out
        assert found == code, out
        return json.loads(out)

    return run


def test_from_import_to_export(said: Callable[..., Any], project: Path) -> None:
    imported = said("import --store store.zarr values.jsonl f.db")
    assert imported == {
        "database": "f.db",
        "records": 3,
        "new_values": 3,
        "known_values": 0,
        "features": {"quality": "number"},
        "values": 3,
        "imports": 1,
    }
    assert said("import --store store.zarr values.jsonl f.db")["known_values"] == 3
    assert said("show f.db") == {"database": "f.db", "features": {"quality": "number"}, "values": 3, "imports": 1}
    assert said("ids store.zarr ids.csv")["documents"] == 3
    document = (project / "ids.csv").read_text().splitlines()[1].split(",")[1]
    known = {"quality": {"value": 0.9, "event_time": "2026-02-01T00:00:00Z"}}
    assert said(f"lookup f.db {document.upper()}") == {"document": document, "features": known}
    assert said(f"lookup f.db {document} --as-of 2026-01-31")["features"]["quality"]["value"] == 0.5
    assert said(f"lookup f.db {'0' * 32}")["features"] == {}
    checked = said("verify f.db --seed 5")
    assert (checked["good"], checked["documents"], checked["seed"], len(checked["times"])) == (True, 2, 5, 6)
    assert said("export f.db feast")["values"] == 3


def test_select_and_train_on_it(said: Callable[..., Any], project: Path) -> None:
    said("import --store store.zarr values.jsonl f.db")
    chosen = said("select store.zarr f.db out.npz --as-of 2026-03-01 --where quality>0.6 --weights 2 --into new.zarr")
    assert (chosen["documents"], chosen["undecided"], chosen["into"]) == (1, 1, "new.zarr")
    assert chosen["weighted_tokens"] == 2 * chosen["tokens"]
    assert chosen["digest"] == read_selection(project / "out.npz").digest
    assert main(["data", "verify", "new.zarr"]) == 0
    sources = [Source(store="store.zarr"), Source(store="new.zarr", weight=3)]
    data = TrainingData.open(DataConfig(train=sources, sequence_length=16))
    taken = open_store(project / "new.zarr")
    starts = {taken.read(place, place + 17).tobytes() for place in range(0, taken.num_tokens - 16, 16)}
    rows = data.batch(0, 200).tokens.astype(taken.info.dtype)
    assert (
        sum(row.tobytes() in starts for row in rows) >= 150
    )  # three of four, and those of store.zarr that are the same
    taken.close()


def test_verify_says_what_is_bad_in_json_too(said: Callable[..., Any], project: Path) -> None:
    said("import --store store.zarr values.jsonl f.db")
    data = bytearray((project / "f.db").read_bytes())
    data[-1] ^= 1
    (project / "f.db").write_bytes(data)
    found = said("verify f.db --seed 1", code=3)
    assert (found["good"], found["file"]) == (False, "f.db")
