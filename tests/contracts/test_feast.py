"""Feast reads what `data features export` writes, and its point-in-time join gives what ours gives.

Feast is no dependency of ours (it holds back packages that serving needs): this runs where it is installed.
"""

import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trainwright.storage.features.database import open_readonly
from trainwright.storage.features.feast_export import export_feast
from trainwright.storage.features.reader import FeatureReader

from ..unit.storage.features.made import FIRST, LAST, make_features

pytest.importorskip("feast", reason="feast is not installed (docs/features.md says how it was checked)")

_NUM_DOCUMENTS, _NUM_QUESTIONS = 60, 400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> FeatureReader:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    return FeatureReader(make_features(tmp_path_factory.mktemp("features"), random.Random(seed), _NUM_DOCUMENTS).path)


@pytest.fixture(scope="module")
def store(reader: FeatureReader, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Feast on the exported folder, applied by its own command."""
    from feast import FeatureStore

    folder = tmp_path_factory.mktemp("feast") / "exported"
    export_feast(reader.path, folder)
    command = [str(Path(sys.executable).parent / "feast"), "apply"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return FeatureStore(repo_path=str(folder))


def test_the_point_in_time_join(reader: FeatureReader, store: Any) -> None:
    """At random times for random documents, and at event times themselves, where both take the value of then.

    Feast's file store leaves a question out where the document has later values alone; that is no value, too.
    """
    import pandas

    chance = random.Random(7)
    documents, exact = _distinct(reader, "hex(document)"), _distinct(reader, "event_time")
    times = [
        chance.choice(exact) if number % 2 else chance.randint(FIRST, LAST + 5) for number in range(_NUM_QUESTIONS)
    ]
    asked = list({(chance.choice(documents).lower(), time) for time in times})  # Feast answers equal ones once
    frame = pandas.DataFrame(
        {
            "document": [document for document, _ in asked],
            "event_timestamp": [_EPOCH + timedelta(microseconds=time) for _, time in asked],
            "number": range(len(asked)),
        }
    )
    found = 0
    for name in reader.about.features:
        answer = store.get_historical_features(entity_df=frame, features=[f"{name}:{name}"]).to_df()
        rows = answer.to_dict("records")
        theirs = {row["number"]: row[name] for row in rows if not pandas.isna(row[name])}
        assert len({row["number"] for row in rows}) == len(rows)
        ours = {number: reader.get(*question).get(name) for number, question in enumerate(asked)}
        assert theirs == {number: value for number, value in ours.items() if value is not None}, name
        found += len(theirs)
    assert found > len(asked)


def test_the_online_store(reader: FeatureReader, store: Any) -> None:
    store.materialize(_EPOCH + timedelta(microseconds=FIRST - 1), _EPOCH + timedelta(microseconds=LAST + 1))
    documents = [document.lower() for document in _distinct(reader, "hex(document)")]
    answer = store.get_online_features(
        features=store.get_feature_service("all_features"),
        entity_rows=[{"document": document} for document in documents],
    ).to_dict()
    for number, document in enumerate(documents):
        theirs = {name: answer[name][number] for name in reader.about.features}
        assert {name: value for name, value in theirs.items() if value is not None} == reader.get(document)


def _distinct(reader: FeatureReader, column: str) -> list[Any]:
    connection, _ = open_readonly(reader.path)
    found = [row[0] for row in connection.execute(f"SELECT DISTINCT {column} FROM value ORDER BY 1")]
    connection.close()
    return found
