"""Features of documents at scale: seconds to import and to join, microseconds of a look-up, and plain SQLite beside it.

`python -m benchmarks.features [DOCUMENTS]` makes four features of so many documents (250,000), each with two values, in
a folder that it removes. Nothing is read from the network. Look-ups are of random documents, all in the page cache.
"""

import json
import random
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from trainwright.storage.features.as_of import join_as_of
from trainwright.storage.features.database import open_readonly
from trainwright.storage.features.identity import ID_BYTES
from trainwright.storage.features.importing import ImportOptions, import_features
from trainwright.storage.features.reader import FeatureReader
from trainwright.storage.features.times import parse_time

from .help_cpu import machine

_LOOKUPS = 20_000
_THREADS = 4
_AS_OF = parse_time("2026-03-01")
_PLAIN = (
    "SELECT feature, event_time, value FROM value WHERE document = ? AND event_time <= ? ORDER BY feature, event_time"
)


def main(num_documents: int) -> None:
    """Make, measure, print."""
    chance = random.Random(1)
    ids = [chance.randbytes(ID_BYTES) for _ in range(num_documents)]
    print(f"{num_documents:,} documents; {machine()}; SQLite {sqlite3.sqlite_version}")
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "features.db"
        for number, moment in enumerate(("2026-01-01", "2026-06-01")):
            source = _write(Path(folder) / f"{number}.jsonl", ids, moment, chance)
            spent_s = _timed(lambda source=source: import_features([source], database, ImportOptions()))  # type: ignore[misc]
            print(f"import {number}: {spent_s:.1f} s, {4 * num_documents / spent_s:,.0f} values a second")
        print(f"size: {database.stat().st_size / 8 / num_documents:.1f} bytes per value")
        print(f"as-of join of all: {_timed(lambda: _join(database, ids)):.1f} s")
        _lookups(database, ids, chance)


def _write(path: Path, ids: list[bytes], moment: str, chance: random.Random) -> Path:
    with path.open("w") as file:
        for each in ids:
            values = {"quality": chance.random(), "language": chance.choice(("en", "de")), "stars": 3, "checked": True}
            file.write(json.dumps({"document": each.hex(), "event_time": moment, **values}) + "\n")
    return path


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _join(database: Path, ids: list[bytes]) -> None:
    connection, about = open_readonly(database)
    columns = join_as_of((connection, about), database, np.array(ids, f"V{ID_BYTES}"), list(about.features), _AS_OF)
    connection.close()
    assert all(column.known.all() for column in columns.values())


def _lookups(database: Path, ids: list[bytes], chance: random.Random) -> None:
    asked = chance.choices(ids, k=_LOOKUPS)
    with FeatureReader(database) as reader:
        _report("look-up", [_timed(lambda each=each: reader.get(each, _AS_OF)) for each in asked])  # type: ignore[misc]
        times: list[float] = []
        parts = [asked[number::_THREADS] for number in range(_THREADS)]

        def work(part: list[bytes]) -> None:
            times.extend([_timed(lambda each=each: reader.get(each, _AS_OF)) for each in part])  # type: ignore[misc]

        threads = [threading.Thread(target=work, args=(part,)) for part in parts]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        spent_s = time.perf_counter() - began
        _report(f"look-up, {_THREADS} threads", times)
        print(f"{len(times) / spent_s:,.0f} look-ups a second together")
    connection = sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)
    fetch = connection.execute
    _report("plain SQLite", [_timed(lambda each=each: fetch(_PLAIN, (each, _AS_OF)).fetchall()) for each in asked])  # type: ignore[misc]
    connection.close()


def _report(what: str, times_s: list[float]) -> None:
    times_us = sorted(time_s * 1e6 for time_s in times_s)
    print(f"{what}: p50 {statistics.median(times_us):.1f} us, p99 {times_us[len(times_us) * 99 // 100]:.1f} us")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 250_000)
