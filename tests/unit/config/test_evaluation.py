"""The `evaluation` section, and what of it is refused before anything is written."""

from pathlib import Path

import pytest

from trainwright.config.errors import UserError
from trainwright.config.loading import load_run


def test_paths_are_absolute_and_names_follow_the_stores(run_file: Path) -> None:
    run = load_run(run_file, ["evaluation.stores=[{store: held/wiki.zarr}, {store: 's3://b/code.zarr', name: code}]"])
    assert [held.store for held in run.evaluation.stores] == [
        str(run_file.parent / "held/wiki.zarr"),
        "s3://b/code.zarr",
    ]
    assert [held.label for held in run.evaluation.stores] == ["wiki", "code"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("evaluation.stores=[{store: a.zarr}, {store: b/a.zarr}]", r"stores\.1\.name: 'a' is another store's name too"),
        ("evaluation.every_steps=0", r"evaluation\.every_steps: 0"),
        ("evaluation.batches=0", r"evaluation\.batches: 0"),
        ("evaluation.stores=[{stor: a.zarr}]", r"did you mean evaluation\.stores\.0\.store\?"),
    ],
)
def test_mistakes(run_file: Path, override: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_run(run_file, [override])
