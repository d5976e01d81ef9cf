"""`trainwright data`: what it prints, its exit codes, and what it does not import."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUN = """
import sys
from trainwright.cli import main
main.COMMANDS = ("data",)
try:
    code = main.main(sys.argv[1:])
finally:
    heavy = ("torch", "transformers", "pydantic", "zarr", "tensorstore", "pyarrow")
    loaded = [name for name in heavy if name in sys.modules]
    print("loaded", *loaded, file=sys.stderr)
sys.exit(code)
"""


def data(*arguments: object) -> tuple[int, str, list[str]]:
    """Run `trainwright data ...` in a process: exit code, stdout, stderr's lines; nothing heavy may be imported."""
    run = [sys.executable, "-c", RUN, "data", *map(str, arguments)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120)
    lines = done.stderr.splitlines()
    loaded = [line for line in lines if line.startswith("loaded")]
    assert loaded == ["loaded"], done.stderr
    return done.returncode, done.stdout, [line for line in lines if line not in loaded]


def result(*arguments: object) -> dict[str, Any]:
    code, out, error = data(*arguments, "--json")
    assert (code, error) == (0, []), error
    record: dict[str, Any] = json.loads(out)
    return record


@pytest.fixture
def store(text_folder: Path, tmp_path: Path) -> Path:
    code, out, error = data("build", text_folder, tmp_path / "s.zarr", "--vocab-size", 300, "--shard-tokens", 2048)
    assert (code, error) == (0, []), error
    assert out.startswith(f"{tmp_path / 's.zarr'}: ")
    return tmp_path / "s.zarr"


def test_advice_and_origins(store: Path, tmp_path: Path) -> None:
    advice = result("inspect", store, "--advise", "--sequence-length", 64)
    assert (advice["read"], advice["window"]) == ("map", None)
    assert advice["sequential_mb_per_s"] > 0
    code, out, error = data("inspect", store, "--advise")
    assert (code, error) == (0, [])
    assert "the whole store is shuffled" in out
    (tmp_path / "config.json").write_text("{}")  # not looked at
    run = (
        f"schema_version: 1\nname: x\nmodel: config.json\ndata: {{train: [{{store: {store}}}], sequence_length: 64}}\n"
    )
    (tmp_path / "run.yaml").write_text(run + "train: {steps: 1, global_batch_size: 1}\n")
    shown = order(tmp_path / "run.yaml", "--explain", 7, "--count", 2, "--json")
    samples = json.loads(shown)["samples"]
    assert [sample["position"] for sample in samples] == [7, 8]
    lengths = [sum(part["last"] - part["first"] + 1 for part in sample["documents"]) for sample in samples]
    assert lengths == [65, 65]
    text = order(tmp_path / "run.yaml", "--explain", 7)
    name = store.name.removesuffix(".zarr")
    assert text.startswith(f"position 7: stage 0, {name}, epoch 0, sample {samples[0]['sample']} of {store}\n")
    assert f"document {samples[0]['documents'][0]['document']}, its tokens " in text


def order(*arguments: object) -> str:
    """What `trainwright data order` prints; it reads a run file, so it may import pydantic."""
    command = [sys.executable, "-m", "trainwright.cli.main", "data", "order", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_inspect_and_verify(store: Path) -> None:
    shown = result("inspect", store)
    assert (shown["documents"], shown["vocab_size"], shown["dtype"]) == (40, 300, "uint16")
    assert (shown["compression"], shown["generation"], shown["end_of_document"]) == ("none", 1, 0)
    assert shown["shards"] == -(-shown["tokens"] // 2048)
    assert len(shown["tokenizer_fingerprint"]) == 64
    folder = store.parent / "text" / "part0"
    first = next(file for file in sorted(folder.iterdir()) if file.stat().st_size).read_text()
    assert shown["first_text"].startswith(first[:40])
    assert result("verify", store)["good"] is True
    code, out, error = data("inspect", store)
    assert (code, error) == (0, [])
    assert f"{shown['tokens']:,}" in out
    code, out, error = data("verify", store)
    assert (code, error) == (0, [])
    assert "good" in out


def test_build_reports_what_it_left_out(text_folder: Path, tmp_path: Path) -> None:
    (text_folder / "picture.bin").write_bytes(b"\x89PNG\0\0")
    options = ("--extension", "txt", "--extension", ".bin", "--exclude", "part1", "--compression", "zstd")
    code, out, error = data("build", text_folder, tmp_path / "s.zarr", *options, "--json")
    assert code == 0
    assert error[0] == "skipped 1 files that are not UTF-8 text"
    assert error[1].startswith("note: the text has pairs for a vocabulary of ")
    record = json.loads(out)
    assert (record["documents"], record["skipped_files"], record["compression"]) == (27, 1, "zstd")


def test_export_and_back(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"body": "one"}\n{"body": ""}\n')
    options = ("--format", "jsonl", "--field", "body", "--vocab-size", 258)
    assert result("build", tmp_path / "a.json", tmp_path / "a.zarr", *options)["documents"] == 2
    code, out, error = data("export", tmp_path / "a.zarr", tmp_path / "a.h5")
    assert (code, out, error) == (0, f"{tmp_path / 'a.h5'}: 4 tokens of 2 documents\n", [])
    exported = result("export", tmp_path / "a.zarr", tmp_path / "b.h5")
    assert exported["size_bytes"] == (tmp_path / "b.h5").stat().st_size
    result("build", tmp_path / "b.h5", tmp_path / "b.zarr")
    first, back = (result("inspect", tmp_path / name) for name in ("a.zarr", "b.zarr"))
    assert back == {**first, "store": str(tmp_path / "b.zarr")}
    assert back["first_text"] == "one<|endoftext|><|endoftext|>"


def test_a_bad_store_is_exit_3_and_names_the_file(store: Path) -> None:
    path = store / "c" / "1"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    for command in ("inspect", "verify"):
        code, out, error = data(command, store)
        assert (code, out, len(error)) == (3, "", 1)
        assert error[0].startswith(f"trainwright: {path}: truncated")
    changed = bytearray(content)
    changed[9] ^= 4
    path.write_bytes(changed)
    code, out, error = data("verify", store, "--json")
    assert (code, len(error)) == (3, 1)
    assert error[0].startswith(f"trainwright: {path}: inner chunk 0 fails its crc32c; restore")
    record = json.loads(out)
    assert (record["good"], record["file"]) == (False, str(path))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build", "{t}/nowhere", "{t}/s.zarr"], ["SOURCE {t}/nowhere", "no such file or folder"]),
        (["build", "{t}/empty", "{t}/s.zarr"], ["SOURCE {t}/empty", "holds no file"]),
        (["build", "/dev/null", "{t}/s.zarr"], ["SOURCE /dev/null", "not a folder or file"]),
        (["build", "{t}/binary", "{t}/s.zarr"], ["SOURCE", "none of 1 files is UTF-8 text"]),
        (["build", "{t}/text", "{t}/text"], ["STORE {t}/text", "exists already"]),
        (["build", "{t}/text", "{t}/binary/s.zarr"], ["STORE {t}/binary/s.zarr", "is not a folder"]),
        (["build", "{t}/text", "{t}/s.zarr", "--vocab-size", "100"], ["--vocab-size", "100", "at least 257"]),
        (["build", "{t}/text", "{t}/s.zarr", "--vocab-size", "many"], ["--vocab-size", "many"]),
        (["build", "{t}/text", "{t}/s.zarr", "--shard-tokens", "5000"], ["--shard-tokens", "5000", "give 5120"]),
        (["build", "{t}/text", "{t}/s.zarr", "--compression", "gzip"], ["--compression", "gzip", "none, zstd"]),
        (["build", "{t}/text", "{t}/s.zarr", "--tokenizer", "{t}/empty"], ["{t}/empty/tokenizer.json", "no such file"]),
        (["build", "{t}/text", "{t}/s.zarr", "--tokenizer", "{t}/bad.json"], ["{t}/bad.json", "not a tokenizer"]),
        (["build", "{t}/text", "{t}/s.zarr", "--tokenizer", "{t}/endless.json"], ["{t}/endless.json", "eos_token"]),
        (["build", "{t}/text"], ["STORE"]),
        (["inspect", "{t}/text"], ["{t}/text", "not a token store", "data build"]),
        (["verify", "{t}/nowhere"], ["{t}/nowhere", "not a token store"]),
        (["bild"], ["'bild'", "did you mean 'build'?"]),
    ],
)
def test_mistakes_take_one_line(text_folder: Path, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary").write_bytes(b"\0")
    (tmp_path / "bad.json").write_text('{"model": {}}')
    model = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    (tmp_path / "endless.json").write_text(json.dumps({"version": "1.0", "model": model}))
    before = sorted(tmp_path.rglob("*"))
    code, out, error = data(*(argument.format(t=tmp_path) for argument in arguments))
    assert (code, out, len(error)) == (2, "", 1), error
    for word in words:
        assert word.format(t=tmp_path) in error[0]
    assert sorted(tmp_path.rglob("*")) == before
