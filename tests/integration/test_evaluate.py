"""`trainwright evaluate`: perplexity as transformers has it, tasks as the harness has them, mistakes in one line."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from trainwright.cli.main import main
from trainwright.serving.export import ExportOptions, export_checkpoint
from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.checkpoints.checkpoint import find_checkpoint
from trainwright.storage.tokens.reader import open_store

from .real_runs import Model, make_project, train

pytestmark = pytest.mark.ranks
TASK = """\
task: letters
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was trained for a few steps, beside stores and a task."""
    folder = tmp_path_factory.mktemp("evaluate")
    run = train(make_project(folder, Model("llama", tied=True)), "run", ["train.steps=12"])
    export_checkpoint(find_checkpoint(str(run.path)), folder / "exported", ExportOptions(dtype="float32"))
    build_store([folder / "text"], folder / "other.zarr", BuildOptions(vocab_size=300), lambda *_: None)
    tasks = folder / "tasks"
    tasks.mkdir()
    rows = [{"text": "abc", "choices": [" def gh", "\u00e9\u00e8\u00ea"], "answer": number % 2} for number in range(8)]
    (folder / "letters.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tasks / "letters.yaml").write_text(TASK.format(file=folder / "letters.jsonl"))
    return folder / "exported"


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("length", [64, 7])
def test_perplexity_is_that_of_each_document(exported: Path, capsys: pytest.CaptureFixture[str], length: int) -> None:
    """Against transformers, document by document; a long one in pieces that share one token."""
    from transformers import AutoModelForCausalLM

    place = exported.parent / "store.zarr"
    [found] = evaluate(capsys, exported, "--store", place, "--length", length, "--tokens", 3000)["stores"]
    model, store = AutoModelForCausalLM.from_pretrained(exported), open_store(place)
    starts = [*store.document_index.within(0, 3000).tolist(), 3000]
    total, tokens = 0.0, 0
    for start, stop in pairwise(starts):
        document = torch.from_numpy(store.read(start, stop).astype("int64"))
        for at in range(0, len(document) - 1, length - 1):
            piece = document[None, at : at + length]
            with torch.inference_mode():
                total += float(model(piece, labels=piece).loss) * (piece.shape[1] - 1)
            tokens += piece.shape[1] - 1
    assert (found["documents"], found["tokens"]) == (len(starts) - 1, tokens)
    assert found["loss"] == pytest.approx(total / tokens, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(total / tokens), rel=1e-4)


def test_a_task_of_ones_own(
    exported: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both answers alternate, and the model always likes the letters that it knows: half of them are right."""
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(exported.parent / "cache"))
    found = evaluate(capsys, exported, "--tasks", "letters", "--include-path", exported.parent / "tasks")
    assert found["tasks"]["letters"]["acc,none"] == 0.5
    found = evaluate(capsys, exported, "--tasks", "letters", "--include-path", exported.parent / "tasks", "--limit", 1)
    assert found["tasks"]["letters"]["acc,none"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to measure is given; give --store or --tasks"),
        (["--store", "other.zarr"], "has another tokenizer than"),
        (["--store", "none.zarr"], "none.zarr"),
        (["--store", "store.zarr", "--length", "100"], "--length: 100 is more than the model's 64 positions"),
        (["--store", "store.zarr", "--device", "gpu7"], "--device gpu7: cannot be used here"),
        (["--store", "store.zarr", "--fewshot", "-1"], "--fewshot: -1 is too small; give 0 or more"),
        (["--tasks", "helaswag"], "--tasks: 'helaswag' is no task; did you mean"),
        (["--tasks", "letters", "--include-path", "nowhere"], "--include-path: nowhere is no folder"),
    ],
)
def test_mistakes(
    exported: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    if "--tasks" in arguments:
        pytest.importorskip("lm_eval")
    monkeypatch.chdir(exported.parent)
    with pytest.raises(SystemExit) as end:
        main(["evaluate", str(exported), *arguments])
    assert end.value.code == 2
    [line] = capsys.readouterr().err.splitlines()[-1:]
    assert words in line
