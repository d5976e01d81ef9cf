"""plan: ranks, nodes, layers, numbers and the script, with nothing written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainwright.cli.main import main
from trainwright.config.loading import load_run
from trainwright.launchers.plan import plan_run
from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.building.sources import Selection
from trainwright.storage.tokens.store import read_info

_TWO_NODES = ["cluster.profile=dev", "cluster.nodes=2", "parallelism.tensor=2", "parallelism.pipeline=2"]


def test_each_rank_has_its_node_place_and_layers(run_file: Path) -> None:
    plan = plan_run(load_run(run_file, _TWO_NODES))
    assert plan.layout == {"tensor": 2, "pipeline": 2, "data": 1}
    places = [(p.rank, p.node, p.tensor, p.data, p.pipeline, *p.layers[0]) for p in plan.ranks]
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


_STORES = "data.train=[{store: web.zarr, name: w, weight: 3}, {store: code.zarr}]"
_STAGES = "data.stages=[{until_tokens: 256}, {until_tokens: 1e4, weights: {code: 1}}, {until_tokens: 1e6}, {}]"


def test_what_each_stage_reads_of_each_store(run_file: Path) -> None:
    """400 steps of 4 samples of 32 tokens; web.zarr is here, code.zarr is only named."""
    text = run_file.parent / "text.txt"
    text.write_text("\n".join(str(number) for number in range(3000)))
    build_store([text], run_file.parent / "web.zarr", BuildOptions(vocab_size=300, selection=Selection()), print)
    size = (read_info(run_file.parent / "web.zarr").tokens - 1) // 32
    plan = plan_run(load_run(run_file, [_STORES, _STAGES, "train.steps=400"]))
    found = [(share.stage, share.source, share.samples, share.tokens) for share in plan.data]
    assert found[:4] == [(0, "w", 6, 192), (0, "code", 2, 64), (1, "w", 0, 0), (1, "code", 305, 9760)]
    assert [(share.samples, share.share) for share in plan.data[4:]] == [
        (966, 966 / 1287),
        (321, 321 / 1287),
        (0, 0),
        (0, 0),
    ]
    assert [share.epochs for share in plan.data if share.source == "w"] == [6 / size, 0, 966 / size, 0]
    assert {share.epochs for share in plan.data if share.source == "code"} == {None}
    assert plan.warnings[-1] == "data.stages.3: begins at 1,000,000 tokens, after the run's last step"
    many = plan_run(load_run(run_file, [_STORES, _STAGES, f"train.steps={2 * size}"])).warnings[0]
    assert many.startswith("data.train.0.store: w is read ")
    assert 4 < float(many.split()[4]) < 8


def test_the_command_prints_the_data(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(run_file), _STORES, _STAGES, "train.steps=400"]) == 0
    shown = capsys.readouterr()
    assert "     1 100.00%           305               9,760  unknown  code\n" in shown.out
    assert "   all  60.75%           972              31,104  unknown  w\n" in shown.out
    assert shown.err == "warning: data.stages.3: begins at 1,000,000 tokens, after the run's last step\n"


def test_a_job_has_its_costs_binding_and_environment(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    money = [
        "cluster.price_per_cpu_hour=0.5",
        "cluster.network_interface=ib0",
        "cluster.slurm_conf=/nowhere/slurm.conf",
    ]
    assert main(["plan", str(run_file), *_TWO_NODES, *money, "--step-time-s", "900", "--json"]) == 0
    job = json.loads(capsys.readouterr().out)["job"]
    numbers = {name: estimate["value"] for name, estimate in job["estimates"].items()}
    assert (numbers["hours_at_most"], numbers["price_at_most"]) == (4, 2)  # the profile dev has one hour, 2 x 2 cores
    assert (numbers["hours_expected"], numbers["price_expected"]) == (4, 2)  # 4 steps of a quarter of an hour
    assert (numbers["lost_steps"], numbers["lost_s"], numbers["signal_lead_s"]) == (2, None, 180)
    assert job["start"]["time"] is None
    assert job["start"]["why"]
    assert job["binding"] == ["--distribution=block:block", "--cpu-bind=none"]
    values = {variable["name"]: variable["value"] for variable in job["environment"]}
    assert (values["GLOO_SOCKET_IFNAME"], values["NCCL_SOCKET_IFNAME"]) == ("ib0", "ib0")
    assert main(["plan", str(run_file), *_TWO_NODES, *money]) == 0
    printed = capsys.readouterr().out
    assert "at most     4 CPU-hours = 2 nodes x 2 CPUs x 1 h time limit\n" in printed
    assert "expected    not measured: the time of a step" in printed
    assert "  NCCL_SOCKET_IFNAME=ib0  [cluster.network_interface]\n" in printed


@pytest.mark.parametrize("words", ["0", "-1", "nan", "inf", "fast"])
def test_a_step_time_is_a_number_above_zero(run_file: Path, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["plan", str(run_file), f"--step-time-s={words}"])
    assert f"{words} is not a number of seconds" in capsys.readouterr().err


def test_plan_imports_no_torch(run_file: Path) -> None:
    code = "import sys; from trainwright.cli.main import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "plan", str(run_file)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == "False"
