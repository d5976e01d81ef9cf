"""Fill in the middle loses nothing but three tokens, keeps its rates, and is the same for everybody."""

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainwright.cli.main import main
from trainwright.config.data import DataConfig
from trainwright.config.errors import UserError
from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.loading.fill_in_the_middle import Filler, Move
from trainwright.storage.loading.packing import pack_store
from trainwright.storage.loading.samples import Batch
from trainwright.storage.loading.training_data import TrainingData

from ..chats import chat_store, write_tokenizer
from ..conftest import WORDS, quiet

LENGTH = 96
END, PREFIX, MIDDLE, SUFFIX = range(4)
Segment = tuple[int, int, int]


def config(store: Path | str = "s", *, rate: float = 1.0, spm_rate: float = 0.5, **fields: Any) -> DataConfig:
    fill = {"rate": rate, "spm_rate": spm_rate}
    settings = {"train": [{"store": str(store)}], "sequence_length": LENGTH, "fill_in_the_middle": fill, **fields}
    return DataConfig.model_validate(settings)


def filler(**fields: Any) -> Filler:
    return Filler(config(**fields), (PREFIX, MIDDLE, SUFFIX), END)


def draw_batch(rng: random.Random, count: int) -> Batch:
    """Samples of documents of random lengths, of tokens from 10 on; some end with END, some with padding."""
    batch = Batch(np.array([[rng.randrange(10, 99) for _ in range(LENGTH + 1)] for _ in range(count)]))
    for row in range(count):
        column = rng.randrange(0, 12)
        while column <= LENGTH:
            if column:
                batch.starts[row, column] = True
                batch.tokens[row, column - 1] = END
            column += rng.randrange(1, 40)
        if rng.random() < 0.3:
            batch.filled[row] = rng.randrange(1, LENGTH + 1)
            batch.tokens[row, batch.filled[row] :] = END
            batch.starts[row, batch.filled[row]] = True
    return batch


def documents(batch: Batch) -> list[Segment]:
    """Row, first and the first column after each document, without its END."""
    found = []
    for row in range(len(batch.tokens)):
        filled = int(batch.filled[row])
        bounds = [0, *(column for column in range(1, filled) if batch.starts[row, column]), filled]
        for number, start in enumerate(bounds[:-1]):
            stop = bounds[number + 1]
            found.append((row, start, stop - (batch.tokens[row, stop - 1] == END)))
    return found


def put_back(tokens: list[int]) -> list[int]:
    """The document from what it was turned into."""
    assert tokens[0] == PREFIX
    if tokens[1] == SUFFIX:
        middle = tokens.index(MIDDLE)
        return tokens[middle + 1 :] + tokens[2:middle]
    suffix, middle = tokens.index(SUFFIX), tokens.index(MIDDLE)
    return tokens[1:suffix] + tokens[middle + 1 :] + tokens[suffix + 1 : middle]


@pytest.mark.parametrize("spm_rate", [0.0, 0.5, 1.0])
def test_documents_can_be_put_together_again(rng: random.Random, spm_rate: float) -> None:
    before = draw_batch(rng, 200)
    after = Batch(before.tokens.copy())
    after.starts, after.filled = before.starts.copy(), before.filled.copy()
    forms = set()
    filler(spm_rate=spm_rate).apply(after, rng.randrange(1 << 40))
    rest = np.ones(before.tokens.shape, bool)
    for row, start, stop in documents(before):
        old, new = before.tokens[row, start:stop].tolist(), after.tokens[row, start:stop].tolist()
        rest[row, start:stop] = False
        if len(old) < 6:
            assert new == old
            continue
        forms.add(new[1] == SUFFIX and new.index(MIDDLE) > 1 and spm_rate > 0)
        if spm_rate == 1:
            assert new[:2] == [PREFIX, SUFFIX]
        if spm_rate == 0:
            assert new.index(SUFFIX) < new.index(MIDDLE)
            prefix, suffix, middle = 0, new.index(SUFFIX), new.index(MIDDLE)
            assert new[prefix + 1 : suffix] + new[middle + 1 :] + new[suffix + 1 : middle] == old[:-3]
        else:
            assert old[:-3] in (put_back(new), put_back_psm(new))
    assert np.array_equal(after.tokens[rest], before.tokens[rest]), "ends and padding stay"
    assert np.array_equal(after.starts, before.starts)
    assert len(forms) == (2 if spm_rate == 0.5 else 1)


def put_back_psm(tokens: list[int]) -> list[int]:
    """As PSM also where the prefix is empty, which looks like SPM."""
    suffix, middle = tokens.index(SUFFIX), tokens.index(MIDDLE)
    return tokens[1:suffix] + tokens[middle + 1 :] + tokens[suffix + 1 : middle]


def test_rates(rng: random.Random) -> None:
    rate, spm_rate = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9)
    batch = draw_batch(rng, 1500)
    eligible = sum(stop - start >= 6 for _, start, stop in documents(batch))
    made = filler(rate=rate, spm_rate=spm_rate, seed=rng.randrange(1 << 62))
    moves = made.moves(batch, rng.randrange(1 << 40))
    assert abs(len(moves) - rate * eligible) <= 6 * math.sqrt(eligible * rate * (1 - rate))
    first = sum(move.suffix_first for move in moves)
    assert abs(first - spm_rate * len(moves)) <= 6 * math.sqrt(len(moves) * spm_rate * (1 - spm_rate))
    # Cuts are uniform: a middle has a third of the document on average, with a deviation of sqrt(1 / 18).
    shares = [move.middle / (move.stop - move.start - 3) for move in moves if move.stop - move.start >= 20]
    assert abs(np.mean(shares) - 1 / 3) <= 6 * math.sqrt(1 / 18 / len(shares)) + 0.02
    assert len(filler(rate=1.0).moves(batch, 0)) == eligible
    assert filler(rate=0.0).moves(batch, 0) == []
    # In another epoch others are cut, elsewhere.
    assert made.moves(batch, 0) != made.moves(batch, 1500)


def test_recorded_vector() -> None:
    """docs/data-order.md has these."""
    batch = Batch(np.full((7, LENGTH + 1), 50))
    batch.starts[:, 40] = True
    moves = filler(rate=0.5, seed=1234).moves(batch, 1000)
    found = [(m.row + 1000, m.start, m.stop, m.suffix_first, m.prefix, m.middle, m.suffix) for m in moves]
    assert found == VECTOR
    page = (Path(__file__).parents[4] / "docs" / "data-order.md").read_text()
    for position, start, _, suffix_first, *sizes in found:
        form = "SPM" if suffix_first else "PSM"
        assert f"| {position} | {start} | {form} | {', '.join(map(str, sizes))} |" in page


VECTOR = [
    (1000, 40, 97, True, 20, 20, 14),
    (1002, 0, 40, True, 11, 20, 6),
    (1002, 40, 97, True, 25, 10, 19),
    (1003, 0, 40, True, 9, 24, 4),
    (1004, 0, 40, False, 10, 25, 2),
    (1005, 0, 40, False, 13, 1, 23),
    (1006, 0, 40, True, 35, 2, 0),
]


@pytest.fixture
def texts(tmp_path: Path, rng: random.Random) -> Path:
    """A store of texts whose tokenizer has the special tokens."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.txt").write_text(" ".join(rng.choices(WORDS, k=rng.randrange(1, 60))))
    options = BuildOptions(tokenizer=write_tokenizer(tmp_path / "tok"), shard_tokens=4096, workers=1)
    build_store([folder], tmp_path / "texts.zarr", options, quiet)
    pack_store(tmp_path / "texts.zarr", LENGTH)
    return tmp_path / "texts.zarr"


@pytest.mark.parametrize("packing", ["split", "best_fit"])
def test_the_same_in_any_layout(texts: Path, rng: random.Random, packing: str) -> None:
    settings = config(texts, rate=0.6, packing=packing)
    data = TrainingData.open(settings)
    whole, first = data.batch(0, 64, starts=False), rng.randrange(20)
    plain = TrainingData.open(config(texts, rate=0.0, packing=packing)).batch(0, 64)
    assert not np.array_equal(whole.tokens, plain.tokens)
    assert np.array_equal(whole.starts, plain.starts)
    other, position = TrainingData.open(settings), first
    while position < 64:  # as ranks, accumulation or a resumed run may cut it
        count = min(rng.randrange(1, 9), 64 - position)
        assert np.array_equal(other.batch(position, count).tokens, whole.tokens[position : position + count])
        position += count


def test_off_is_as_before(texts: Path) -> None:
    data = TrainingData.open(config(texts, rate=0.0))
    assert "fill_in_the_middle" not in data.order_record
    assert not data.batch(0, 4, starts=False).starts.any()
    assert TrainingData.open(config(texts)).order_record["fill_in_the_middle"]["rate"] == 1.0


def test_what_is_not_predicted_whole_stays(tmp_path: Path, rng: random.Random) -> None:
    chats = chat_store(tmp_path, rng)
    plain = TrainingData.open(config(chats, rate=0.0)).batch(0, 20)
    assert plain.trained is not None
    after = TrainingData.open(config(chats)).batch(0, 20)
    for row, start, stop in documents(plain):  # END is 0 here too
        if not plain.trained[row, start:stop].all():
            assert np.array_equal(after.tokens[row, start:stop], plain.tokens[row, start:stop])
    assert after.trained is not None
    assert np.array_equal(after.trained, plain.trained)
    moved = TrainingData.open(config(chats, prompt_mask=False)).batch(0, 20)
    assert not np.array_equal(moved.tokens, plain.tokens)


def test_unknown_tokens_are_named(texts: Path) -> None:
    fill = {"rate": 0.5, "tokens": {"middle": "<MID>"}}
    settings = DataConfig.model_validate({**config(texts).model_dump(), "fill_in_the_middle": fill})
    with pytest.raises(UserError, match=r"fill_in_the_middle\.tokens\.middle: '<MID>' is no token of .*tokenizer"):
        TrainingData.open(settings)


@pytest.mark.parametrize("packing", ["split", "best_fit"])
def test_explained(texts: Path, packing: str, run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = TrainingData.open(config(texts, rate=0.6, packing=packing))
    plain = TrainingData.open(config(texts, rate=0.0, packing=packing)).batch(0, 30)
    batch, changed = data.batch(0, 30), 0
    for row, origin in enumerate(data.explain(0, 30)):
        column = 0
        for part in origin.documents:
            stop = column + part.last - part.first + 1
            same = np.array_equal(batch.tokens[row, column:stop], plain.tokens[row, column:stop])
            assert same == (part.fill_in_the_middle is None)
            changed += not same
            column = stop
        assert all(part.get("fill_in_the_middle", "x") for part in origin.record()["documents"])
    assert changed > 10
    options = [f"data.train.0.store={texts}", "data.fill_in_the_middle.rate=1"]
    assert main(["data", "order", "--explain", "0", str(run_file), *options]) == 0
    assert "its middle moved (" in capsys.readouterr().out
    assert main(["data", "order", "--json", "--explain", "0", str(run_file), options[0]]) == 0
    assert "fill_in_the_middle" not in json.loads(capsys.readouterr().out)["samples"][0]["documents"][0]


def test_words_for_a_move() -> None:
    move = Move(0, 5, 25, True, 4, 7)
    assert str(move) == "SPM, prefix 4, middle 7, suffix 6 tokens, 3 cut off"
