"""Time limits in Slurm's words, and what local jobs refuse."""

from pathlib import Path

import pytest

from trainwright.config.cluster import ClusterConfig
from trainwright.config.errors import UserError
from trainwright.launchers.job import TaskSpec, run_module, submit_task
from trainwright.launchers.local_controller import seconds


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (None, None),
        ("90", 5400.0),
        ("1:30", 90.0),
        ("01:00:05", 3605.0),
        ("2-3", 183600.0),
        ("1-00:30", 88200.0),
        ("1-01:01:01", 90061.0),
    ],
)
def test_seconds(words: str | None, number: float | None) -> None:
    assert seconds(words) == number


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": 2}, "cluster.nodes: 2, but scheduler local has this machine alone"),
        ({"partition": "gpu"}, "cluster.partition: 'gpu'; only Slurm jobs have it"),
        ({"modules": ["gcc"]}, "cluster.modules: .* only Slurm jobs have it"),
    ],
)
def test_what_only_slurm_has_is_refused_not_ignored(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    spec = TaskSpec(
        name="x",
        title="x",
        function=run_module,
        cluster=ClusterConfig.model_validate(changes),
        directory=tmp_path,
        folder=tmp_path / "jobs",
        logs=tmp_path / "logs",
    )
    with pytest.raises(UserError, match=message):
        submit_task(spec)
    assert list(tmp_path.iterdir()) == []
