"""plan: ranks, nodes, layers, numbers and the script, with nothing written."""

import json
from pathlib import Path

import pytest

from trainwright.cli.main import main
from trainwright.config.loading import load_run
from trainwright.launchers.plan import plan_run

_TWO_NODES = ["cluster.profile=dev", "cluster.nodes=2", "parallelism.tensor=2", "parallelism.pipeline=2"]


def test_each_rank_has_its_node_place_and_layers(run_file: Path) -> None:
    plan = plan_run(load_run(run_file, _TWO_NODES))
    assert plan.layout == {"tensor": 2, "pipeline": 2, "data": 1}
    places = [(p.rank, p.node, p.tensor, p.data, p.pipeline, p.first_layer, p.last_layer) for p in plan.ranks]
    assert places == [(0, 0, 0, 0, 0, 0, 1), (1, 0, 1, 0, 0, 0, 1), (2, 1, 0, 0, 1, 2, 3), (3, 1, 1, 0, 1, 2, 3)]
    # embedding and head 2*512*64; per layer q and o 2*64*64, k and v 2*64*32, mlp 3*64*128, norms 2*64; last norm 64
    assert plan.parameters == 2 * 512 * 64 + 4 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64) + 64
    assert (plan.tokens_per_step, plan.steps, plan.tokens) == (128, 4, 512)
    assert plan.script is not None
    assert "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=2\n" in plan.script
    assert not (run_file.parent / "runs").exists()


def test_the_command_prints_it(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(run_file), *_TWO_NODES]) == 0
    text = capsys.readouterr().out
    assert "tensor 2 x pipeline 2 x data 1 = 4 ranks" in text
    assert "     3     1       1     0         1  2-3\n" in text
    assert "#!/bin/bash" in text
    assert main(["plan", str(run_file), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["script"] is None
    assert len(shown["ranks"]) == 1
