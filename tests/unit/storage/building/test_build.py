"""From files to a token store: the tokens are the tokenizer's, the order of files is fixed, the tokenizer is kept."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from trainwright.config.errors import UserError
from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.building.sources import Selection
from trainwright.storage.tokens.reader import open_store
from trainwright.storage.tokens.store import read_info
from trainwright.storage.tokens.tokenizer import take_tokenizer

from ..conftest import quiet

Make = Callable[..., Path]


def expected_tokens(folder: Path, tokenizer: Tokenizer, end: int) -> tuple[list[int], list[int]]:
    """All tokens and the documents' beginnings, by the tokenizers library one file at a time."""
    tokens: list[int] = []
    starts = []
    for file in sorted(folder.rglob("*.txt"), key=lambda path: [os.fsencode(part) for part in path.parts]):
        starts.append(len(tokens))
        tokens += [*tokenizer.encode(file.read_bytes().decode(), add_special_tokens=False).ids, end]
    return tokens, starts


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_tokens_are_those_of_the_tokenizer(make_store: Make, text_folder: Path, compression: str) -> None:
    path = make_store(compression=compression)
    tokenizer = Tokenizer.from_file(str(path / "tokenizer" / "tokenizer.json"))
    tokens, starts = expected_tokens(text_folder, tokenizer, 0)
    store = open_store(path)
    assert store.read(0, store.num_tokens).tolist() == tokens
    assert store.document_index.within(0, store.num_tokens).tolist() == starts
    assert store.info.num_shards == -(-len(tokens) // 2048) > 2
    assert store.info.dtype == "uint16"
    assert tokenizer.token_to_id("<|endoftext|>") == 0


def test_the_same_text_gives_the_same_bytes(make_store: Make, tmp_path: Path) -> None:
    """In another process too, whose hash seed differs."""
    first = make_store("first.zarr")
    code = (
        "import sys; from pathlib import Path; from trainwright.storage.building.build import *\n"
        "options = BuildOptions(vocab_size=300, shard_tokens=2048)\n"
        "build_store([Path(sys.argv[1])], Path(sys.argv[2]), options, lambda *_: None)"
    )
    second = tmp_path / "second.zarr"
    subprocess.run([sys.executable, "-c", code, tmp_path / "text", second], check=True, timeout=120)
    names = sorted(path.relative_to(first) for path in first.rglob("*"))
    assert names == sorted(path.relative_to(second) for path in second.rglob("*"))
    for name in names:
        assert (first / name).is_dir() or (first / name).read_bytes() == (second / name).read_bytes(), name


def test_files_are_chosen_and_ordered(tmp_path: Path) -> None:
    texts = {"b.py": "bee", "a/z.py": "zed", "a.py": "ay", "a/skip.md": "no", "tests/t.py": "no", ".hidden.py": "no"}
    texts["old.zarr/zarr.json"] = "no"
    texts["old.zarr/inner.py"] = "no"
    for name, text in texts.items():
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_text(text)
    (tmp_path / "src" / "binary.py").write_bytes(b"\0\1")
    (tmp_path / "src" / "latin.py").write_bytes("naïve".encode("latin-1"))
    (tmp_path / "one.txt").write_text("single")
    options = BuildOptions(vocab_size=257, selection=Selection((".py",), ("tes?s",)))
    result = build_store([tmp_path / "src", tmp_path / "one.txt"], tmp_path / "s.zarr", options, quiet)
    store = open_store(tmp_path / "s.zarr")
    text = take_tokenizer(store.tokenizer_folder).decode(store.read(0, store.num_tokens).tolist())
    assert text == "zed<|endoftext|>ay<|endoftext|>bee<|endoftext|>single<|endoftext|>"
    assert result.skipped == 2


def test_special_tokens_spelt_in_a_text_stay_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one<|endoftext|>two")
    build_store([tmp_path / "a.txt"], tmp_path / "s.zarr", BuildOptions(vocab_size=257), quiet)
    tokens = open_store(tmp_path / "s.zarr").read(0, 20).tolist()
    assert tokens.count(0) == 1
    assert tokens[-1] == 0


def hf_folder(folder: Path, config: dict[str, object] | None, vocab: dict[str, int]) -> Path:
    """A word-level Hugging Face tokenizer that pads, truncates and adds a first token: none of it may show."""
    folder.mkdir()
    added = [{"id": number, "content": token, "special": True} for token, number in vocab.items() if token[0] == "<"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer = {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 9},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<s>",
        },
        "added_tokens": [{**token, **flags} for token in added],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [vocab["<s>"]], "tokens": ["<s>"]}},
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


VOCAB = {"<s>": 0, "<unk>": 1, "</s>": 2, "hello": 3, "world": 4}


@pytest.mark.parametrize("config", [None, {"eos_token": "</s>"}, {"eos_token": {"content": "</s>"}}])
@pytest.mark.parametrize("as_file", [False, True])
def test_a_hugging_face_tokenizer_is_taken(tmp_path: Path, config: dict[str, object] | None, as_file: bool) -> None:
    folder = hf_folder(tmp_path / "hf", config, VOCAB)
    (tmp_path / "a.txt").write_text("Hello world hello there world")
    given = folder / "tokenizer.json" if as_file else folder
    build_store([tmp_path / "a.txt"], tmp_path / "s.zarr", BuildOptions(tokenizer=given), quiet)
    store = open_store(tmp_path / "s.zarr")
    assert store.read(0, store.num_tokens).tolist() == [3, 4, 3, 1, 4, 2]
    kept = json.loads((store.tokenizer_folder / "tokenizer_config.json").read_bytes())
    assert (kept["eos_token"], kept["pad_token"]) == ((config or {}).get("eos_token", "</s>"),) * 2
    assert take_tokenizer(store.tokenizer_folder).fingerprint() == store.info.tokenizer_fingerprint


def test_a_large_vocabulary_takes_uint32(tmp_path: Path) -> None:
    vocab = {**VOCAB, **{f"w{number}": number for number in range(5, 70_000)}}
    folder = hf_folder(tmp_path / "hf", None, vocab)
    (tmp_path / "a.txt").write_text("hello w69999 w65536")
    build_store([tmp_path / "a.txt"], tmp_path / "s.zarr", BuildOptions(tokenizer=folder), quiet)
    store = open_store(tmp_path / "s.zarr")
    assert store.info.dtype == "uint32"
    assert store.read(0, 4).tolist() == [3, 69_999, 65_536, 2]


def test_auto_tokenizer_reads_the_kept_files(make_store: Make) -> None:
    transformers = pytest.importorskip("transformers")
    path = make_store()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path / "tokenizer")
    store = open_store(path)
    first = store.read(0, int(store.document_index.within(1, store.num_tokens)[0])).tolist()
    text = tokenizer.decode(first[:-1])
    assert tokenizer(text)["input_ids"] == first[:-1]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 0)


def test_a_smaller_vocabulary_or_another_text_is_another_fingerprint(make_store: Make, tmp_path: Path) -> None:
    base = read_info(make_store("base.zarr")).tokenizer_fingerprint
    assert read_info(make_store("smaller.zarr", vocab_size=290)).tokenizer_fingerprint != base
    same = make_store("same.zarr", tokenizer=tmp_path / "base.zarr" / "tokenizer", shard_tokens=4096)
    assert read_info(same).tokenizer_fingerprint == base


def test_shards_of_every_length_read_back(tmp_path: Path, rng: random.Random) -> None:
    """Lengths around the borders of chunks and shards, with a byte per token."""
    for length in (1, 1022, 1023, 1024, 2047, 2048, 4095, rng.randrange(1, 9000)):
        (tmp_path / "a.txt").write_bytes(bytes(rng.choices(b"abcdefgh", k=length)))
        options = BuildOptions(vocab_size=257, shard_tokens=rng.choice([1024, 2048, 3072]))
        store_path = tmp_path / f"{length}.zarr"
        build_store([tmp_path / "a.txt"], store_path, options, quiet)
        store = open_store(store_path)
        tokenizer = take_tokenizer(store.tokenizer_folder)
        assert tokenizer.decode(store.read(0, length).tolist()) == (tmp_path / "a.txt").read_text()
        assert store.num_tokens == length + 1


def test_many_documents_take_several_shards_of_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainwright.storage.tokens.index_writer.INDEX_SHARD", 16)
    monkeypatch.setattr("trainwright.storage.tokens.index_writer.INDEX_CHUNK", 4)
    for number in range(50):
        (tmp_path / "src").mkdir(exist_ok=True)
        (tmp_path / "src" / f"{number:02}").write_text("x" * number)
    build_store([tmp_path / "src"], tmp_path / "s.zarr", BuildOptions(vocab_size=257), quiet)
    index = open_store(tmp_path / "s.zarr").document_index
    assert index.num_chunks == 13
    assert sorted(path.name for path in (tmp_path / "s.zarr/documents/c").iterdir()) == ["0", "1", "2", "3"]
    starts = np.cumsum([0] + [number + 1 for number in range(49)])
    for low, high in ((0, 2000), (0, 1), (1, 2), (100, 101), (150, 1000), (1225, 1275), (1275, 1276)):
        expected = starts[(starts >= low) & (starts < high)]
        assert index.within(low, high).tolist() == expected.tolist(), (low, high)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"vocab_size": 256}, "--vocab-size"),
        ({"shard_tokens": 1000}, "--shard-tokens"),
        ({"shard_tokens": 0}, "--shard-tokens"),
        ({"compression": "gzip"}, "--compression"),
        ({"tokenizer": Path("/nonexistent")}, "--tokenizer"),
        ({"selection": Selection((".nope",))}, "SOURCE"),
    ],
)
def test_bad_options_name_themselves(make_store: Make, tmp_path: Path, options: dict[str, object], where: str) -> None:
    with pytest.raises(UserError) as caught:
        make_store(**options)
    assert caught.value.where.startswith(where)
    assert [path.name for path in tmp_path.iterdir()] == ["text"], "nothing is left"
