"""Selecting: the digest is that of the question and the answer, whoever asks; a new store holds exact copies."""

import io
import json
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainwright.config.errors import FoundBad, UserError
from trainwright.storage.building.append import append_store
from trainwright.storage.building.build import BuildOptions
from trainwright.storage.features.identity import document_starts, store_ids
from trainwright.storage.features.importing import ImportOptions, import_features
from trainwright.storage.features.select import Question, select_documents
from trainwright.storage.features.selected_store import SELECTION, copies_of, write_selected_store
from trainwright.storage.features.selection import Selection, read_selection
from trainwright.storage.features.times import parse_time
from trainwright.storage.tokens.reader import open_store
from trainwright.storage.tokens.verify import verify_store

from .made import FIRST, LAST, Made, make_features

WHERE = "(quality >= 0.3 or checked) and language in ('en', 'de', '')"
QUESTION = Question(parse_time("2026-08-01"), WHERE, "min(quality * 3, 2.5) if quality is not None else 1")


@pytest.fixture
def store(make_store: Callable[..., Path]) -> Path:
    return make_store()


def ids_of(store: Path) -> list[str]:
    opened = open_store(store)
    ids = [each.tobytes().hex() for each in store_ids(opened)]
    opened.close()
    return ids


@pytest.fixture
def made(store: Path, tmp_path: Path, rng: random.Random) -> Made:
    """Features of the store's documents, and of others."""
    documents = sorted({*ids_of(store), *(rng.randbytes(16).hex() for _ in range(20))})
    return make_features(tmp_path, rng, 0, documents)


def test_the_answer_is_what_plain_python_says(store: Path, made: Made) -> None:
    selection = select_documents(store, made.path, QUESTION)
    ids, tokens = ids_of(store), 0
    opened = open_store(store)
    lengths = np.diff(document_starts(opened)).tolist()
    for document, weight, length in zip(ids, selection.weights.tolist(), lengths, strict=True):
        known = made.known(document, QUESTION.as_of)
        quality = known.get("quality")
        good = known.get("checked") is True or (quality is not None and float(quality) >= 0.3)
        expected = 1.0 if quality is None else min(float(quality) * 3, 2.5)
        assert weight == (expected if good and known.get("language") in ("en", "de", "") else 0.0)
        tokens += length * (weight > 0)
    opened.close()
    record = selection.record
    assert (record["tokens"], record["documents"]) == (tokens, int((selection.weights > 0).sum()))
    language = record["features"]["language"]
    assert sum(each["taken"] for each in language["values"].values()) == language["taken"] == record["documents"]
    assert sum(each["tokens_taken"] for each in language["values"].values()) == tokens


def test_the_digest_is_the_same_for_another_shape_of_store_order_of_imports_and_process(
    store: Path, made: Made, make_store: Callable[..., Path], tmp_path: Path, rng: random.Random
) -> None:
    digest = select_documents(store, made.path, QUESTION).digest
    again = make_store(
        "again.zarr", compression="zstd", shard_tokens=1024, vocab_size=None, tokenizer=store / "tokenizer"
    )
    lines = [line for part in sorted(tmp_path.glob("part-*.jsonl")) for line in part.read_text().splitlines()]
    rng.shuffle(lines)
    (tmp_path / "all.jsonl").write_text("\n".join(lines))
    import_features([tmp_path / "all.jsonl"], tmp_path / "other.db", ImportOptions())
    assert select_documents(again, tmp_path / "other.db", QUESTION).digest == digest
    command = [sys.executable, "-m", "trainwright.cli.main", "data", "features", "select", str(again)]
    command += [str(tmp_path / "other.db"), str(tmp_path / "out.npz"), "--as-of", "2026-08-01", "--json"]
    command += ["--where", f" {QUESTION.where}", "--weights", QUESTION.weights]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONHASHSEED": "7"}
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["digest"] == digest == read_selection(tmp_path / "out.npz").digest


def test_the_digest_tells_apart_what_differs(store: Path, made: Made, tmp_path: Path) -> None:
    questions = [
        QUESTION,
        replace(QUESTION, as_of=QUESTION.as_of + 1),
        replace(QUESTION, weights="1"),
        replace(QUESTION, where=f"({WHERE}) or cluster is None"),
    ]
    digests = {select_documents(store, made.path, question).digest for question in questions}
    document = next(each for each in ids_of(store) if "quality" in made.known(each, QUESTION.as_of))
    line = {"document": document, "event_time": "2026-07-31T23:59:59.9Z", "quality": 0.123456}
    (tmp_path / "late.jsonl").write_text(json.dumps(line))
    import_features([tmp_path / "late.jsonl"], made.path, ImportOptions())
    digests.add(select_documents(store, made.path, QUESTION).digest)
    assert len(digests) == len(questions) + 1


def test_what_comes_later_changes_nothing(store: Path, made: Made, tmp_path: Path) -> None:
    before = select_documents(store, made.path, QUESTION)
    lines = [{"document": each, "event_time": "2026-08-01T00:00:00.000001Z", "quality": 0.0} for each in ids_of(store)]
    (tmp_path / "late.jsonl").write_text("\n".join(map(json.dumps, lines)))
    import_features([tmp_path / "late.jsonl"], made.path, ImportOptions())
    assert select_documents(store, made.path, QUESTION).digest == before.digest


def test_a_file_that_numpy_and_zip_read_the_same_bytes_each_time(store: Path, made: Made, tmp_path: Path) -> None:
    selection = select_documents(store, made.path, QUESTION)
    selection.write(tmp_path / "a.npz")
    back = read_selection(tmp_path / "a.npz")
    back.write(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert np.array_equal(np.load(tmp_path / "a.npz")["weights"], selection.weights)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert json.loads(archive.read("selection.json"))["digest"] == back.digest == selection.digest


def test_a_changed_file_is_found(store: Path, made: Made, tmp_path: Path, rng: random.Random) -> None:
    path = tmp_path / "a.npz"
    selection = select_documents(store, made.path, QUESTION)
    selection.write(path)
    good, silent = path.read_bytes(), 0
    named = 0
    for _ in range(200):
        data = bytearray(good)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data if rng.random() < 0.7 else good[: rng.randrange(len(good))])
        try:
            silent += read_selection(path).digest != selection.digest
        except (FoundBad, UserError) as error:
            named += error.where == str(path)
    assert (silent, named > 150) == (0, True)
    weights = selection.weights.copy()
    weights[0] += 1
    file = io.BytesIO()
    np.save(file, weights)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("selection.json", json.dumps({**selection.record, "digest": selection.digest}))
        archive.writestr("weights.npy", file.getvalue())
    with pytest.raises(FoundBad, match="digest differs"):
        read_selection(path)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_new_store_holds_each_document_as_often_as_its_weight_says(
    make_store: Callable[..., Path], made: Made, tmp_path: Path, compression: str
) -> None:
    path = make_store(
        "source.zarr", compression=compression, vocab_size=None, tokenizer=tmp_path / "store.zarr" / "tokenizer"
    )
    selection = select_documents(path, made.path, QUESTION)
    info = write_selected_store(path, selection, tmp_path / "new.zarr", lambda *_: None)
    assert verify_store(tmp_path / "new.zarr", lambda *_: None) == info
    source, new = open_store(path), open_store(tmp_path / "new.zarr")
    starts, copies = document_starts(source), copies_of(store_ids(source), selection.weights)
    assert ((copies == np.floor(selection.weights)) | (copies == np.ceil(selection.weights))).all()
    expected = [
        source.read(int(starts[number]), int(starts[number + 1]))
        for times in range(int(copies.max()))
        for number in np.flatnonzero(copies > times).tolist()
    ]
    assert np.array_equal(new.read(0, new.num_tokens), np.concatenate(expected))
    assert np.diff(document_starts(new)).tolist() == [len(each) for each in expected]
    assert read_selection(tmp_path / "new.zarr" / SELECTION).digest == selection.digest
    assert (new.info.tokenizer_fingerprint, new.info.shard_tokens) == (source.info.tokenizer_fingerprint, 2048)
    for store in (source, new):
        store.close()


def test_a_store_that_grew_is_selected_from_whole_and_the_new_one_begins_anew(
    make_store: Callable[..., Path], tmp_path: Path, made: Made
) -> None:
    path = make_store(
        "grown.zarr", deduplicate="exact", vocab_size=None, tokenizer=tmp_path / "store.zarr" / "tokenizer"
    )
    first = select_documents(path, made.path, Question(LAST, "True"))
    (tmp_path / "more.txt").write_text("one more document")
    append_store([tmp_path / "more.txt"], path, BuildOptions(), (lambda *_: None, lambda text: None))
    second = select_documents(path, made.path, Question(LAST, "True"))
    assert len(second.weights) == len(first.weights) + 1
    assert [each.record["store"]["generation"] for each in (first, second)] == [1, 2]
    assert first.digest != second.digest
    info = write_selected_store(path, second, tmp_path / "new.zarr", lambda *_: None)
    assert (info.generation, info.earlier, info.deduplication) == (1, (), None)
    assert verify_store(tmp_path / "new.zarr", lambda *_: None) == info
    with pytest.raises(UserError, match="not the store that was selected from"):
        write_selected_store(path, first, tmp_path / "other.zarr", lambda *_: None)


def test_fractions_come_by_chance_and_larger_weights_keep_what_smaller_ones_had(rng: random.Random) -> None:
    ids = np.frombuffer(rng.randbytes(16 * 4000), "V16")
    before = np.zeros(4000, np.int64)
    for weight in (0.0, 0.1, 0.5, 1.0, 1.25, 2.9):
        copies = copies_of(ids, np.full(4000, weight))
        assert abs(copies.mean() - weight) < 0.04  # five standard deviations of a fair coin
        assert (copies >= before).all()
        before = copies


def test_a_store_of_another_content_is_refused(
    store: Path, made: Made, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    selection = select_documents(store, made.path, QUESTION)
    (tmp_path / "other.txt").write_text("some other text")
    other = make_store("other.zarr", tmp_path / "other.txt", vocab_size=None, tokenizer=store / "tokenizer")
    with pytest.raises(UserError, match="not the store that was selected from"):
        write_selected_store(other, selection, tmp_path / "new.zarr", lambda *_: None)
    none = Selection(selection.record, np.zeros_like(selection.weights))
    with pytest.raises(UserError, match="no whole copy"):
        write_selected_store(store, none, tmp_path / "new.zarr", lambda *_: None)
    with pytest.raises(UserError, match="exists already"):
        write_selected_store(store, selection, other, lambda *_: None)
    assert not (tmp_path / "new.zarr").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (Question(FIRST - 1, "quality > 0"), ("--where: takes none of 40 documents", "(0 values")),
        (Question(LAST, "quality > 0 or True", "-1"), ("--weights: document 0 gets -1", "max(..., 0)")),
        (Question(LAST, "True", "1001"), ("--weights: document 0 gets 1001",)),
        (Question(LAST, "True", "language"), ("--weights", "not a number")),
        (Question(LAST, "1"), ("--where", "neither true nor false")),
    ],
)
def test_questions_without_an_answer(store: Path, made: Made, question: Question, words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught:
        select_documents(store, made.path, question)
    assert all(word in str(caught.value) for word in words), caught.value


def test_all_documents_with_plain_weights(store: Path, made: Made) -> None:
    assert select_documents(store, made.path, Question(LAST, "True", "0.5")).weights.tolist() == [0.5] * 40
