"""Importing: history is only added to; what contradicts it is refused with its place, a kill leaves the old file."""

import csv
import gzip
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard

from trainwright.config.errors import FoundBad, UserError
from trainwright.storage.features.importing import ImportOptions, import_features
from trainwright.storage.features.reader import FeatureReader
from trainwright.storage.features.records import RowOptions
from trainwright.storage.features.times import parse_time
from trainwright.storage.features.verify import verify_features

A, B = "00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100"


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def record(document: str, time: str, **values: object) -> dict[str, object]:
    return {"document": document, "event_time": time, **values}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    source = write(tmp_path / "first.jsonl", record(A, "2026-01-02", quality=0.5, language="en"))
    import_features([source], tmp_path / "f.db", ImportOptions())
    return tmp_path / "f.db"


def add(database: Path, *records: dict[str, object], **options: object) -> None:
    source = write(database.parent / "more.jsonl", *records)
    import_features([source], database, ImportOptions(rows=RowOptions(**options)))  # type: ignore[arg-type]


def test_a_later_value_leaves_the_earlier_one_and_so_does_an_earlier_one(database: Path) -> None:
    add(database, record(A, "2026-03-01", quality=0.9), record(A, "2025-01-01", quality=0.1))
    with FeatureReader(database) as reader:
        assert [reader.get(A, year).get("quality") for year in ("2024-12-31", "2025-06-01", "2026-02-01")] == [
            None,
            0.1,
            0.5,
        ]
        assert reader.get(A) == {"quality": 0.9, "language": "en"}
        assert reader.get(A, "2026-01-02") == {"quality": 0.5, "language": "en"}
        assert reader.get(A, parse_time("2026-01-02") - 1) == {"quality": 0.1}
        assert reader.get(B) == {}


def test_equal_rows_again_change_no_byte(database: Path) -> None:
    before, inode = database.read_bytes(), database.stat().st_ino
    result = import_features([database.parent / "first.jsonl"] * 2, database, ImportOptions())
    assert (result.num_records, result.num_new, result.num_known) == (2, 0, 4)
    assert (database.read_bytes(), database.stat().st_ino) == (before, inode)
    assert sorted(path.name for path in database.parent.iterdir()) == ["f.db", "first.jsonl"]


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([record(B, "2026-01-01"), record(A, "2026-01-02", quality=0.6)], ("line 2: quality of", "0.6", "says 0.5")),
        ([record(B, "2026-01-01", x=1), record(B, "2026-01-01T01:00+01:00", x=2)], ("line 2: x of", "is 2, and")),
        ([record(B, "2026-01-01", quality="high")], ("line 1: quality is a number, and 'high' is not",)),
        ([record(B, "2026-01-01", quality=True)], ("quality is a number, and True is not",)),
        ([record(B, "2026-01-01", language=3)], ("language is text, and 3 is not",)),
        ([record(B, "2026-01-01", quality=float("nan"))], ("line 1: quality: nan is not a finite number",)),
        ([record(B, "2026-01-01", quality=[1])], ("quality: '[1]' is no number",)),
        ([record(B, "2026-01-01", quality=1 << 70)], ("does not fit in 64 bits",)),
        ([record(B, "2026-01-01", big=(1 << 60)), record(A, "2026-01-01", big=0.5)], ("line 2: big holds whole",)),
        ([record(B, "2026-01-01", language="x" * 5000)], ("a text of 5000 bytes",)),
        ([record(B, "2026-01-01", language="\ud800")], ("half of a character",)),
        ([record(B, "2026-01-01", **{"my quality": 1})], ("'my quality' is no name", "--feature")),
        ([record(B, "2026-01-01", **{"not": 1})], ("'not' is no name",)),
        ([record(B, "yesterday", quality=1)], ("line 1: event_time: 'yesterday' is no time", "ISO 8601")),
        ([record(B, "2026-01-01T00:00:00.1234567", quality=1)], ("finer than a microsecond",)),
        ([{"document": B, "event_time": 1767225600, "x": 1}], ("event_time: '1767225600' is no time",)),
        ([{"document": B, "x": 1}], ("line 1: no event_time", "--event-time")),
        ([{"event_time": "2026-01-01", "x": 1}], ("no text in field 'document'",)),
        ([{"event_time": "2026-01-01", "text": "a", "x": 1}], ("(with --store, 'text' names it)",)),
        ([record("abc", "2026-01-01", x=1)], ("line 1: document: 'abc' is no document id",)),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(
    database: Path, records: list[dict[str, object]], words: tuple[str, ...]
) -> None:
    before = database.read_bytes()
    with pytest.raises(UserError) as caught:
        add(database, *records)
    for word in ("SOURCE", "more.jsonl", *words):
        assert word in str(caught.value)
    assert database.read_bytes() == before
    assert not list(database.parent.glob(".*"))


def test_whole_numbers_become_numbers_with_the_first_fraction(database: Path) -> None:
    add(database, record(A, "2026-01-01", stars=3), record(B, "2026-01-01", stars=4.5))
    add(database, record(B, "2026-01-02", stars=2))
    with FeatureReader(database) as reader:
        values = [reader.get(A)["stars"], reader.get(B, "2026-01-01")["stars"], reader.get(B)["stars"]]
    assert values == [3.0, 4.5, 2.0]
    assert {type(value) for value in values} == {float}
    verify_features(database, seed=1)


def test_only_what_is_chosen_is_taken_and_records_may_have_no_time(database: Path) -> None:
    source = write(database.parent / "wide.jsonl", {"document": B, "my quality": 1, "stars": 2, "language": "de"})
    rows = RowOptions(features=("stars",), event_time=parse_time("2026-05-01"))
    import_features([source], database, ImportOptions(rows=rows))
    with FeatureReader(database) as reader:
        assert {name: known[:] for name, known in reader.get_known(B).items()} == {"stars": (2, rows.event_time)}


def test_formats_agree(tmp_path: Path) -> None:
    """The same records in every format are the same values; null and an empty cell are no value."""
    records = [
        record(A, "2026-01-02T00:00:00Z", quality=0.5, stars=3, language="no", checked=True),
        record(B, "2026-01-03T04:05:06.789Z", quality=1.0, stars=None, language="007", checked=False),
        record(B, "2026-01-04T04:05:06+02:00", quality=-2e-3, stars=-4, language=None, checked=None),
    ]
    lines = "".join(json.dumps(each) + "\n" for each in records).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.compress(lines))
    with (tmp_path / "d.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, records[0])
        writer.writeheader()
        writer.writerows(records)
    pyarrow.parquet.write_table(pa.Table.from_pylist(records), tmp_path / "e.parquet")
    times = [{**each, "event_time": parse_time(str(each["event_time"]))} for each in records]
    table = pa.Table.from_pylist(times)
    stamped = table["event_time"].cast(pa.timestamp("us")).cast(pa.timestamp("ns"))
    pyarrow.parquet.write_table(table.set_column(1, "event_time", stamped), tmp_path / "f.parquet")
    found = []
    for source in sorted(tmp_path.iterdir()):
        database = tmp_path / f"{source.name}.db"
        import_features([source], database, ImportOptions())
        with FeatureReader(database) as reader:
            asked = [reader.get_known(document, at) for document in (A, B) for at in ("2026-01-03", None)]
            found.append((asked, {name: each.kind for name, each in reader.about.features.items()}))
    assert len(found) == 6
    assert all(each == found[0] for each in found)
    assert found[0][1] == {"quality": "number", "stars": "integer", "language": "text", "checked": "boolean"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("document,event_time,x\na,b\n", ("line 2: 2 cells, and 3 in the header",)),
        ("x,x\n", ("twice",)),
        ("", ("empty",)),
        (f"document,event_time,quality\n{A},2026-01-09,high\n", ("line 2: quality is a number, and 'high' is not",)),
        ('document,event_time,x\n"a', ("line 2: not CSV",)),
    ],
)
def test_bad_csv(database: Path, text: str, words: tuple[str, ...]) -> None:
    (database.parent / "bad.csv").write_text(text)
    with pytest.raises(UserError) as caught:
        import_features([database.parent / "bad.csv"], database, ImportOptions())
    assert all(word in str(caught.value) for word in ("bad.csv", *words)), caught.value


def test_times_in_parquet_that_are_too_fine(database: Path) -> None:
    table = pa.table({"document": [A], "event_time": pa.array([1], pa.timestamp("ns")), "x": [1]})
    pyarrow.parquet.write_table(table, database.parent / "a.parquet")
    with pytest.raises(UserError, match="whole microseconds"):
        import_features([database.parent / "a.parquet"], database, ImportOptions())


def _import_and_say(source: Path, database: Path, ready: Any) -> None:
    ready.set()
    import_features([source], database, ImportOptions())


def test_a_kill_at_any_moment_leaves_the_file_of_before_or_after(database: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    documents = [chance.randbytes(16).hex() for _ in range(6000)]
    source = write(database.parent / "many.jsonl", *(record(each, "2026-02-01", quality=1.5) for each in documents))
    before, context = database.read_bytes(), multiprocessing.get_context("fork")
    killed = 0
    for number in range(8):
        ready = context.Event()
        process = context.Process(target=_import_and_say, args=(source, database, ready))
        process.start()
        assert ready.wait(60)
        time.sleep(chance.random() * 0.05 * (number + 1))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        killed += process.exitcode == -signal.SIGKILL
        if database.read_bytes() != before:
            break
    assert killed
    import_features([source], database, ImportOptions())
    checked = verify_features(database, seed)
    assert (checked.num_documents, checked.about.num_values) == (6001, 6002)
    assert not list(database.parent.glob(".*"))


def test_one_import_at_a_time(database: Path) -> None:
    from trainwright.storage.features.copying import copy_beside

    with copy_beside(database):
        with pytest.raises(UserError, match="another process is writing it"):
            add(database, record(B, "2026-01-01", quality=1))
    add(database, record(B, "2026-01-01", quality=1))


def test_a_reader_keeps_what_it_opened(database: Path) -> None:
    with FeatureReader(database) as old:
        add(database, record(A, "2026-09-09", quality=0.9))
        assert old.get(A)["quality"] == 0.5
        with FeatureReader(database) as new:
            assert new.get(A)["quality"] == 0.9


def test_who_may_read_it_and_a_link_to_it_stay(database: Path) -> None:
    database.chmod(0o640)
    link = database.parent / "link.db"
    link.symlink_to(database)
    add(link, record(B, "2026-01-01", quality=1))
    assert link.is_symlink()
    assert database.stat().st_mode & 0o777 == 0o640
    with FeatureReader(database) as reader:
        assert reader.get(B) == {"quality": 1.0}


def test_no_import_into_a_damaged_file(database: Path) -> None:
    data = database.read_bytes()
    database.write_bytes(data[: len(data) - 4096])
    with pytest.raises(FoundBad, match="bytes instead of"):
        add(database, record(B, "2026-01-01", quality=1))
