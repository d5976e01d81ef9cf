"""Which format a source has: by the names of its files, and for a single file by its first bytes too."""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence

from .base import bad, open_file
from .nanogpt import MAGICS

FORMATS = ("text", "jsonl", "parquet", "hdf5", "arrow", "megatron", "nanogpt")
_ENDINGS = {
    # Compressed, a .json is that of a corpus, and so JSON lines; else it may be one value, and so a text.
    "jsonl": (".jsonl", ".ndjson", *(name + end for name in (".jsonl", ".ndjson", ".json") for end in (".gz", ".zst"))),
    "parquet": (".parquet",),
    "hdf5": (".h5", ".hdf5"),
    "arrow": (".arrow",),
    "megatron": (".bin", ".idx"),
    "nanogpt": (".bin",),  # taken by name only where --format says so: in many folders .bin is anything
}
_STARTS = {
    b"PAR1": "parquet",
    b"\x89HDF\r\n\x1a\n": "hdf5",
    b"ARROW1": "arrow",
    **dict.fromkeys(MAGICS, "nanogpt"),
}
# What lies beside data files and is none: a data set's description, and the mark that Spark leaves.
_COMPANIONS = re.compile(r"(README|LICENSE|LICENCE)(\.\w+)?|dataset_infos?\.json|_SUCCESS")
_SPLIT = re.compile(r"(?:^|[-_./])(train|training|test|val|valid|validation|dev|eval)[-_./]")


def kind_by_name(name: str) -> str:
    """Format of a file of this name; text if the name says nothing."""
    return next((kind for kind, endings in _ENDINGS.items() if name.endswith(endings)), "text")


def kind_of_file(path: str) -> str:
    """Format of a single file."""
    kind = kind_by_name(path)
    if kind == "text" or _is_lone_bin(path, os.path.isfile):
        with open_file(path) as file:
            start = file.read(8)
        kind = next((kind for magic, kind in _STARTS.items() if start.startswith(magic)), kind)
    return kind


def _is_lone_bin(path: str, exists: Callable[[str], bool]) -> bool:
    return path.endswith(".bin") and not exists(f"{path[:-4]}.idx")


def kind_of_folder(folder: str, files: Sequence[str]) -> tuple[str, list[str]]:
    """Format of a folder's files, and those of them that are data.

    Raises UserError if data files of a format lie there with others: which are meant is not guessed.
    """
    present = set(files)
    kinds = {file: _kind_among(file, present) for file in files}
    counts = Counter(kind for file, kind in kinds.items() if not _COMPANIONS.fullmatch(os.path.basename(file)))
    if set(counts) <= {"text"}:
        return "text", list(files)
    if len(counts) > 1:
        shown = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        raise bad(folder, f"holds files of several formats ({shown})", "say which with --format, or use --exclude")
    kind = next(iter(counts))
    return kind, [file for file in files if kinds[file] == kind]


def files_of_kind(kind: str, files: Sequence[str]) -> list[str]:
    """Those files whose names have an ending of the format."""
    return [file for file in files if kind == "text" or file.endswith(_ENDINGS[kind])]


def check_splits(folder: str, files: Sequence[str]) -> None:
    """Raises UserError if the names speak of training and of other splits: a store of both would be read as one."""
    splits = {found[1] for file in files for found in [_SPLIT.search(os.path.relpath(file, folder))] if found}
    if len(splits) > 1:
        names = ", ".join(sorted(splits))
        raise bad(folder, f"holds the splits {names}", "leave others out with --exclude, or name the files you mean")


def _kind_among(path: str, present: set[str]) -> str:
    """A .bin or .idx is a Megatron file only if its other half is there: many programs write .bin files."""
    kind = kind_by_name(path)
    if _is_lone_bin(path, present.__contains__):
        with open_file(path) as file:
            return "nanogpt" if file.read(4) in MAGICS else "text"
    if kind == "megatron" and not {f"{path[:-4]}.bin", f"{path[:-4]}.idx"} <= present:
        return "text"
    return kind
