"""A features file that was changed by anything but an import is found out, or says exactly what it said before."""

import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from trainwright.config.errors import FoundBad, UserError
from trainwright.storage.features.reader import FeatureReader
from trainwright.storage.features.values import is_good
from trainwright.storage.features.verify import verify_features

from .made import LAST, Made, make_features

_NUM_FLIPS = 250


@pytest.fixture
def made(tmp_path: Path, rng: random.Random) -> Made:
    return make_features(tmp_path, rng, 25)


def answers(made: Made) -> list[Any]:
    with FeatureReader(made.path) as reader:
        return [reader.get_known(document) for document in made.documents]


def test_flipped_bits_and_cuts(made: Made, rng: random.Random) -> None:
    good, expected = made.path.read_bytes(), answers(made)
    caught = clean = 0
    for _ in range(_NUM_FLIPS):
        data = bytearray(good)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        made.path.write_bytes(data if rng.random() < 0.9 else good[: rng.randrange(len(good))])
        try:
            verify_features(made.path, seed=1)
            assert answers(made) == expected
        except (FoundBad, UserError) as error:
            caught += error.where == str(made.path)
            continue
        clean += 1
    assert caught + clean == _NUM_FLIPS  # every error named the file
    assert caught > _NUM_FLIPS / 4


def test_a_look_up_alone_never_gives_a_wrong_value(made: Made, rng: random.Random) -> None:
    """It may miss one whose place in the tree is damaged, which only a check of the whole finds."""
    good = made.path.read_bytes()
    history = {document: made.known(document, LAST) for document in made.documents}
    for _ in range(_NUM_FLIPS):
        data = bytearray(good)
        data[rng.randrange(4096, len(data))] ^= 1 << rng.randrange(8)
        made.path.write_bytes(data)
        try:
            found = answers(made)
        except FoundBad:
            continue
        for document, values in zip(made.documents, found, strict=True):
            for name, known in values.items():
                assert known.value in made.history[document, name].values()
                assert known.event_time in made.history[document, name]
    made.path.write_bytes(good)
    assert [{name: known.value for name, known in each.items()} for each in answers(made)] == list(history.values())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE value SET value = 0.123 WHERE feature = (SELECT number FROM feature WHERE name = 'quality')",
        "DELETE FROM value WHERE document = (SELECT min(document) FROM value)",
        "UPDATE value SET event_time = event_time + 1",
        "UPDATE feature SET name = 'quality2' WHERE name = 'quality'",
        "UPDATE feature SET type = 'text' WHERE type = 'integer'",
        "UPDATE import SET sources = CAST(sources AS BLOB)",
        "UPDATE feature SET name = CAST(name AS BLOB) WHERE name = 'quality'",
        "UPDATE about SET num_values = num_values + 1",
        "DELETE FROM import WHERE number = 1",
        "DELETE FROM about",
        "DROP TABLE value",
        "INSERT INTO value SELECT randomblob(16), feature, event_time, value, import, crc FROM value LIMIT 1",
    ],
)
def test_edited_by_hand(made: Made, statement: str) -> None:
    connection = sqlite3.connect(made.path)
    connection.execute(statement)
    connection.commit()
    connection.close()
    with pytest.raises(FoundBad, match=r"features\.db"):
        verify_features(made.path, seed=1)


def test_rows_of_the_wrong_form() -> None:
    for row in ((b"", 1, 1, 1, None, 0), (b"", 1 << 40, 1, 1, 0, 0), (b"", 1, "x", 1, 0, 0), (None, 1, 1, 1, 0, 0)):
        assert not is_good(row, "integer")  # type: ignore[arg-type]
