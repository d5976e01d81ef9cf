"""Layouts that cannot be: one line with the rule, and layouts near it that are checked to work; and unwise ones."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainwright.cli.main import main
from trainwright.config.errors import UserError
from trainwright.config.layout import Layout
from trainwright.config.layout_rules import layout_of
from trainwright.config.loading import load_run
from trainwright.config.model_reader import read_model
from trainwright.config.unwise import unwise

from .layout_mistakes import DENSE, EXPERTS, OTHER_MODELS, SECTIONS, UNWISE

_MOE = {"model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 96}
CASES: list[tuple[dict[str, Any], str, str]] = [
    *(({}, *case) for case in DENSE),
    *((_MOE, *case) for case in EXPERTS),
    *OTHER_MODELS,
]


def overrides_of(fields: str) -> list[str]:
    """`tensor=3` as `parallelism.tensor=3`."""
    section = {name: section for section, names in SECTIONS.items() for name in names}
    return [f"{section.get(part.split('=')[0], 'parallelism')}.{part}" for part in fields.split(" ")]


def change_model(run_file: Path, change: dict[str, Any]) -> None:
    path = Path(load_run(run_file, []).model)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def layout(run_file: Path, overrides: list[str]) -> Layout:
    run = load_run(run_file, overrides)
    return layout_of(run, read_model(Path(run.model)))


def test_there_are_sixty() -> None:
    assert len(CASES) + len(UNWISE) >= 60
    assert len({(str(change), fields) for change, fields, _ in CASES}) == len(CASES)


@pytest.mark.parametrize(("change", "fields", "words"), CASES, ids=[fields for _, fields, _ in CASES])
def test_the_rule_and_layouts_that_keep_it(run_file: Path, change: dict[str, Any], fields: str, words: str) -> None:
    change_model(run_file, change)
    with pytest.raises(UserError) as caught:
        layout(run_file, overrides_of(fields))
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    shown = message.partition("nearest that work: ")[2].split(" | ")
    assert 1 <= len(shown) <= 3, message
    for good in shown:
        layout(run_file, [*overrides_of(fields), *good.split(" ")])


@pytest.mark.parametrize(("fields", "rule", "better"), UNWISE)
def test_an_unwise_layout_is_a_warning(
    run_file: Path, capsys: pytest.CaptureFixture[str], fields: str, rule: str, better: str
) -> None:
    run = load_run(run_file, overrides_of(fields))
    model = read_model(Path(run.model))
    found = [line for line in unwise(run, model, layout_of(run, model)) if rule in line]
    assert len(found) == 1
    assert better in found[0]
    if " nodes" not in f" {fields}":  # more nodes need Slurm
        assert main(["plan", str(run_file), *overrides_of(fields)]) == 0
        assert f"warning: {found[0]}" in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("fields", ["pipeline=2 nodes=2 global_batch_size=16", "ranks_per_node=4", "context=2"])
def test_a_wise_one_is_not(run_file: Path, fields: str) -> None:
    run = load_run(run_file, [*overrides_of(fields), *(["cluster.ranks_per_node=2"] if fields == "context=2" else [])])
    model = read_model(Path(run.model))
    assert unwise(run, model, layout_of(run, model)) == []


def test_said_without_torch_before_anything_starts(run_file: Path) -> None:
    before = sorted(run_file.parent.rglob("*"))
    script = (
        "import sys; from trainwright.cli.main import main; code = main(sys.argv[1:]); "
        "assert not {'torch', 'megatron', 'deepspeed', 'transformers'} & sys.modules.keys(); sys.exit(code)"
    )
    command = [sys.executable, "-c", script, "submit", str(run_file), "parallelism.tensor=3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "80"})
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "nearest that work: parallelism.tensor=1" in done.stderr
    assert sorted(run_file.parent.rglob("*")) == before
