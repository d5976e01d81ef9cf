"""What a job's ranks get as `plan` shows it; nothing that may be a secret."""

from pathlib import Path

import pytest

from trainwright.config.cluster import ClusterConfig
from trainwright.launchers.job_environment import MASKED, Variable, job_environment, masked
from trainwright.launchers.script import ScriptFacts


def _facts(**cluster: object) -> ScriptFacts:
    return ScriptFacts(
        title="t",
        name="n",
        cluster=ClusterConfig.model_validate({"scheduler": "slurm", **cluster}),
        directory=Path("/run"),
        logs=Path("/run/logs"),
        command="true",
        python="python",
        code=Path("/run/code"),
        run=None,
        environment=(),
    )


def _by_name(facts: ScriptFacts) -> dict[str, Variable]:
    return {variable.name: variable for variable in job_environment(facts)}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WANDB_API_KEY", "short"),
        ("HF_TOKEN", "hf_abc"),
        ("MYSQL_PWD", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("HARMLESS", "0123456789abcdef0123456789abcdef01234567"),
    ],
)
def test_secrets_are_masked(name: str, value: str) -> None:
    assert masked(name, value) == MASKED


def test_what_is_no_secret_is_shown() -> None:
    for name, value in {"PWD": "/home/me", "PATH": "/usr/bin:/opt/a1b2c3d4e5f6a7b8c9d0e1", "LANG": "C.UTF-8"}.items():
        assert masked(name, value) == value
    assert masked("HTTPS_PROXY", "http://me:word@proxy:3128") == f"http://{MASKED}@proxy:3128"


def test_only_what_passes_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "tiny-secret")
    monkeypatch.setenv("LEFT_OUT", "1")
    monkeypatch.setenv("HF_HOME", "/cache")
    found = _by_name(_facts(environment=["HF_HOME", "WANDB_API_KEY"], nodes=4, ranks_per_node=8, cpus_per_rank=12))
    assert "LEFT_OUT" not in found
    assert (found["HF_HOME"].value, found["HF_HOME"].source) == ("/cache", "this shell")
    assert found["WANDB_API_KEY"].value == MASKED
    assert (found["WORLD_SIZE"].value, found["SRUN_CPUS_PER_TASK"].value) == ("32", "12")
    assert found["OMP_NUM_THREADS"].value == "12"


def test_the_interface_of_gloo_and_nccl() -> None:
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        assert _by_name(_facts(nodes=2))[name].value is None
        assert _by_name(_facts(nodes=1))[name].value == "lo"
        given = _by_name(_facts(nodes=2, network_interface="ib0"))[name]
        assert (given.value, given.source) == ("ib0", "cluster.network_interface")
