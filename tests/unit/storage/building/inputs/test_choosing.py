"""Which files of which format are taken: by name, by content, by --format; what is not clear is asked, not guessed."""

from pathlib import Path
from typing import Any

import pytest

from trainwright.config.errors import UserError
from trainwright.storage.building.inputs.text import TextFiles
from trainwright.storage.building.sources import Selection, open_sources

from .files import json_lines, write_pair, write_parquet, write_saved, write_stream, write_strings


def taken(
    *sources: Path, extensions: tuple[str, ...] = (), exclude: tuple[str, ...] = (), kind: str = "auto"
) -> list[str]:
    """Each document's text, or the file's name before it for text files."""
    found: list[str] = []
    for each in open_sources(sources, Selection(extensions, exclude), kind):
        if isinstance(each, TextFiles):
            found += [
                f"{Path(path).name}: {text}" for (path, _), (text, _) in zip(each.files, each.texts(), strict=True)
            ]
        else:
            found += [text for text, _ in each.texts()]  # type: ignore[union-attr]
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """JSON lines in two files and a subfolder, beside what describes them."""
    (tmp_path / "data" / "deep").mkdir(parents=True)
    for name in ("b", "a", "deep/c"):
        (tmp_path / "data" / f"{name}.jsonl").write_bytes(json_lines([name]))
    (tmp_path / "data" / "README.md").write_text("what this is")
    (tmp_path / "data" / ".hidden.txt").write_text("not taken")
    return tmp_path / "data"


def test_a_folder_of_one_format(folder: Path) -> None:
    assert taken(folder) == ["a", "b", "deep/c"]
    assert taken(folder, kind="jsonl") == ["a", "b", "deep/c"]
    assert taken(folder, exclude=("deep", "a.*")) == ["b"]
    assert [line.split(":")[0] for line in taken(folder, kind="text")] == ["README.md", "a.jsonl", "b.jsonl", "c.jsonl"]
    assert [line.split(":")[0] for line in taken(folder, extensions=(".md",))] == ["README.md"]


def test_a_folder_of_several_formats_is_asked_about(folder: Path) -> None:
    (folder / "more.txt").write_text("a text")
    with pytest.raises(
        UserError, match=r"SOURCE .*data: holds files of several formats \(3 jsonl, 1 text\); say .*--form"
    ):
        taken(folder)
    assert taken(folder, kind="jsonl") == ["a", "b", "deep/c"]
    assert taken(folder, exclude=("*.jsonl", "README*")) == ["more.txt: a text"]
    assert taken(folder, extensions=(".jsonl",)) == ["a", "b", "deep/c"]
    write_parquet(folder / "p.parquet", ["p"])
    assert taken(folder, kind="parquet") == ["p"]


def test_a_forced_format_takes_other_names_by_extension(folder: Path) -> None:
    (folder / "d.json").write_bytes(json_lines(["d"]))
    assert taken(folder, kind="jsonl", extensions=(".json",)) == ["d"]
    assert taken(folder / "d.json", kind="jsonl") == ["d"]
    with pytest.raises(UserError, match=r"SOURCE .*: holds no file to read"):
        taken(folder, kind="parquet")
    with pytest.raises(
        UserError, match="--format: 'csv'; use auto or one of text, jsonl, parquet, hdf5, arrow, megatron"
    ):
        taken(folder, kind="csv")


def test_files_are_known_by_their_first_bytes(tmp_path: Path) -> None:
    write_parquet(tmp_path / "one", ["parquet"])
    write_strings(tmp_path / "two", ["hdf5"])
    assert taken(tmp_path / "one", tmp_path / "two") == ["parquet", "hdf5"]


def test_a_bin_file_is_no_pair_unless_its_index_is_there(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "picture.bin").write_text("text by chance")
    assert taken(tmp_path / "src") == ["picture.bin: text by chance"]
    write_pair(tmp_path / "src" / "picture", [[[1]]])
    assert [each.path for each in open_sources([tmp_path / "src"], Selection())] == [  # type: ignore[union-attr]
        str(tmp_path / "src" / "picture.bin")
    ]


def test_splits_are_not_mixed_unasked(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_saved(tmp_path / "dict" / split, [split])
        (tmp_path / "parts" / split).mkdir(parents=True)
        write_parquet(tmp_path / "parts" / split / "0.parquet", [split])
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / f"c4-{split}.00000-of-00001.json.gz").write_bytes(json_lines([split]))
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert taken(tmp_path / "dict", exclude=("test",)) == ["train"]
    assert taken(tmp_path / "dict" / "test", tmp_path / "dict" / "train") == ["test", "train"]
    assert taken(tmp_path / "parts", exclude=("test",)) == ["train"]
    with pytest.raises(UserError, match=r"SOURCE .*dict: which of its splits is not clear: train, test; .*--exclude"):
        taken(tmp_path / "dict")
    with pytest.raises(UserError, match=r"which of its splits is not clear: none; "):
        taken(tmp_path / "dict", exclude=("t*",))
    for name in ("parts", "files"):
        with pytest.raises(UserError, match=f"SOURCE .*{name}: holds the splits test, train; .*--exclude"):
            taken(tmp_path / name)


def test_arrow_files_of_a_cache(tmp_path: Path) -> None:
    """What `datasets` keeps in its cache has no state.json."""
    for number in range(2):
        write_stream(tmp_path / f"wiki-train-0000{number}-of-00002.arrow", [str(number)])
    (tmp_path / "dataset_info.json").write_text("{}")
    assert taken(tmp_path) == ["0", "1"]


@pytest.mark.parametrize(
    ("package", "kind", "what"),
    [
        ("pyarrow", "parquet", "a Parquet file"),
        ("pyarrow", "arrow", "an Arrow file"),
        ("zstandard", "zst", "a .zst file"),
    ],
)
def test_without_the_package(
    package: str, kind: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write: dict[str, Any] = {"parquet": write_parquet, "arrow": write_stream}
    path = tmp_path / (f"a.{kind}" if kind in write else "a.jsonl.zst")
    write.get(kind, lambda path, texts: path.write_bytes(b"\x28\xb5\x2f\xfd"))(path, ["text"])
    monkeypatch.setitem(__import__("sys").modules, package, None)
    remedy = r"pip install 'trainwright\[data\]'"
    with pytest.raises(UserError, match=f"{path.name}: {what} needs {package}, which is not installed; {remedy}"):
        taken(path)
