"""The as-of join and the look-up give what the history says, at any time, for every document."""

import hashlib
import json
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from trainwright.config.errors import FoundBad, UserError
from trainwright.storage.features.as_of import join_as_of
from trainwright.storage.features.database import open_readonly
from trainwright.storage.features.identity import ID_BYTES, document_id, store_ids, text_ids
from trainwright.storage.features.reader import FeatureReader
from trainwright.storage.features.times import format_time, parse_time
from trainwright.storage.features.values import Value
from trainwright.storage.features.verify import compare_views, verify_features
from trainwright.storage.tokens.reader import open_store
from trainwright.storage.tokens.tokenizer import open_tokenizer

from .made import FIRST, LAST, Made, make_features


@pytest.fixture
def made(tmp_path: Path, rng: random.Random) -> Made:
    return make_features(tmp_path, rng, 50)


def joined(path: Path, documents: list[str], time: int) -> list[dict[str, Value]]:
    """What the offline join says of documents, in their order."""
    connection, about = open_readonly(path)
    ids = np.frombuffer(bytes.fromhex("".join(documents)), f"V{ID_BYTES}")
    columns = join_as_of((connection, about), path, ids, list(about.features), time)
    connection.close()
    return [
        {name: value for name, column in columns.items() if (value := column.value(number)) is not None}
        for number in range(len(documents))
    ]


def typed(values: dict[str, Value]) -> dict[str, tuple[str, Value]]:
    """So that True is not 1 and 1.0 is not 1."""
    return {name: (type(value).__name__, value) for name, value in values.items()}


def test_both_views_are_the_history(made: Made, rng: random.Random) -> None:
    asked = [*made.documents, "00" * 16, *rng.choices(made.documents, k=20)]  # an unknown one, and some twice
    event_times = [time for values in made.history.values() for time in values]
    times = [FIRST - 1, LAST + 1, *rng.choices(event_times, k=15), *(rng.randint(FIRST, LAST) for _ in range(15))]
    times += [time - 1 for time in rng.choices(event_times, k=10)]
    found = 0
    with FeatureReader(made.path) as reader:
        for time in times:
            offline = joined(made.path, asked, time)
            for document, values in zip(asked, offline, strict=True):
                expected = made.known(document, time)
                assert typed(values) == typed(expected) == typed(reader.get(document, time)), (document, time)
                found += len(expected)
    assert found > 1000


def test_no_value_leaks_from_later(made: Made, rng: random.Random) -> None:
    """What is known as of a time is the same in a file that never heard of anything later."""
    time = sorted(time for values in made.history.values() for time in values)[len(made.history)]
    past = {key: {at: value for at, value in values.items() if at <= time} for key, values in made.history.items()}
    before = Made(made.path, made.documents, past)
    assert joined(made.path, made.documents, time) == [before.known(each, LAST + 1) for each in made.documents]


def test_the_check_of_both_views_finds_a_difference(
    made: Made, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verify_features(made.path, seed=3).num_documents == len({of for of, _ in made.history})
    ids = np.frombuffer(bytes.fromhex("".join(made.documents)), f"V{ID_BYTES}")
    real = FeatureReader.get
    monkeypatch.setattr(FeatureReader, "get", lambda self, document, time: real(self, document, time - 86_400_000_000))
    with pytest.raises(FoundBad, match=r"joined .* found"):
        compare_views(made.path, ids, LAST)


def test_threads_share_a_reader(made: Made, rng: random.Random) -> None:
    wrong: list[str] = []
    expected = {document: made.known(document, LAST) for document in made.documents}
    with FeatureReader(made.path) as reader:

        def ask(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(300):
                document = chance.choice(made.documents)
                if reader.get(document, LAST) != expected[document]:
                    wrong.append(document)

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not wrong


def test_times_and_ids_in_every_form(made: Made) -> None:
    document, moment = made.documents[0], datetime(2026, 7, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    with FeatureReader(made.path) as reader:
        forms = ("2026-07-01T14:00+02:00", "2026-07-01T12:00:00Z", "2026-07-01 12:00", moment, moment.astimezone(UTC))
        expected = reader.get(document, parse_time("2026-07-01T12:00Z"))
        assert all(reader.get(bytes.fromhex(document), form) == expected for form in forms)
        for bad in ("", "00", "zz" * 16, document + "0"):
            with pytest.raises(UserError, match="no document id"):
                reader.get(bad)
        with pytest.raises(UserError, match="3 bytes"):
            reader.get(b"abc")
        with pytest.raises(UserError, match="is no time"):
            reader.get(document, "soon")


def test_times_come_back_as_they_went(rng: random.Random) -> None:
    for _ in range(500):
        time = rng.randint(-(1 << 55), 1 << 56)
        assert parse_time(format_time(time)) == time
    assert format_time(parse_time("2026-11-24T12:00:00Z")) == "2026-11-24T12:00:00Z"


def test_ids_are_those_of_the_text_whatever_the_stores_shape(
    make_store: Callable[..., Path], tmp_path: Path, rng: random.Random
) -> None:
    texts = ["", "a b", "a b", *(" ".join(rng.choices(["naïve", "数据", "x = 1", "fox"], k=50)) for _ in range(40))]
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    first = make_store("first.zarr", source)
    again = make_store(
        "again.zarr", source, shard_tokens=1024, compression="zstd", vocab_size=None, tokenizer=first / "tokenizer"
    )
    found = []
    for path in (first, again):
        store = open_store(path)
        found.append([each.tobytes() for each in store_ids(store)])
        assert found[-1] == text_ids(texts, open_tokenizer(path), store.info.tokenizer_fingerprint)
        store.close()
    assert found[0] == found[1]
    assert found[0][1] == found[0][2]
    assert len(set(found[0])) == len(set(texts))


def test_long_documents_are_hashed_in_pieces(
    make_store: Callable[..., Path], tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(make_store())
    whole = store_ids(store).tobytes()
    for tokens in (1, 7, 100):
        monkeypatch.setattr("trainwright.storage.features.identity._BLOCK_TOKENS", tokens)
        assert store_ids(store).tobytes() == whole
    store.close()


def test_the_id_is_the_published_one() -> None:
    """docs/features.md gives this rule and this value."""
    fingerprint = "ab" * 32
    plain = hashlib.blake2b(bytes([5, 0, 0, 0, 0, 1, 0, 0]), digest_size=16, person=bytes.fromhex("ab" * 16))
    assert document_id([5, 256], fingerprint) == plain.digest()
    assert document_id([5, 256], fingerprint).hex() == "ca75415bd66769aa6f32370555e2c06d"
    assert document_id([5, 256], "cd" * 32) != plain.digest()
