"""What is said of a run's stores before it is submitted."""

from pathlib import Path

from trainwright.config.loading import load_run
from trainwright.launchers.data_checks import environment_warning


def test_variables_that_a_job_will_miss_are_named_without_their_values(run_file: Path) -> None:
    shell = {"AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "x", "TRAINWRIGHT_OBJECTS_TIMEOUT_S": "5", "HOME": "/"}
    there = ["data.train.0.store=s3://bucket/store.zarr", "cluster.environment=[AWS_REGION]"]
    warning = environment_warning(load_run(run_file, there), shell)
    names = "AWS_SECRET_ACCESS_KEY, TRAINWRIGHT_OBJECTS_TIMEOUT_S"
    assert warning == f"cluster.environment: {names} of this shell will not be set in the job"
    named = f"cluster.environment=[{','.join(shell)}]"
    assert environment_warning(load_run(run_file, [there[0], named]), shell) is None
    assert environment_warning(load_run(run_file), shell) is None
