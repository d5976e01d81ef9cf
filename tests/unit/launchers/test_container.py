"""Containers: what is shown inside, and what is refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from trainwright.config.cluster import ClusterConfig
from trainwright.config.container import ContainerConfig
from trainwright.config.errors import UserError
from trainwright.launchers.container import command_words, require_container, srun_options

from .conftest import write_command

_RUN = Path("/shared/runs/tiny")
_SEEN = (Path("/shared/runs"), Path("/shared/runs/store.zarr"), Path("/data/a.zarr"), Path("/data/a"))


def _cluster(**fields: object) -> ClusterConfig:
    return ClusterConfig(scheduler="slurm", container=ContainerConfig.model_validate(fields))


def test_each_folder_is_mounted_once_and_only_the_runtime_that_was_asked_for_speaks() -> None:
    apptainer = _cluster(image="/i.sif", mounts=["/data/a", "/x:/y:ro"])
    words = command_words(apptainer, _RUN, _SEEN)
    binds = [words[place + 1] for place, word in enumerate(words) if word == "--bind"]
    assert binds == ["/data/a", "/data/a.zarr", "/shared/runs", "/x:/y:ro"]
    assert words[-1] == "/i.sif"
    assert "--nv" not in words
    assert "--nv" in command_words(apptainer.model_copy(update={"gpus_per_node": 8}), _RUN, _SEEN)
    assert srun_options(apptainer, _RUN, _SEEN) == []
    pyxis = _cluster(image="nvcr.io#nvidia/pytorch:25.10-py3", runtime="pyxis", mounts=["/x:/y:ro"])
    assert command_words(pyxis, _RUN, _SEEN) == []
    assert srun_options(pyxis, _RUN, _SEEN)[1] == (
        "--container-mounts=/data/a:/data/a,/data/a.zarr:/data/a.zarr,/shared/runs:/shared/runs,/x:/y:ro"
    )
    assert command_words(ClusterConfig(), _RUN, _SEEN) == srun_options(ClusterConfig(), _RUN, _SEEN) == []


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("image", "img.sif", "give an absolute path"),
        ("image", "./img", "give an absolute path"),
        ("image", "a b", "should match"),
        ("mounts", ["data"], "'data' is not /path"),
        ("mounts", ["/a:b"], "is not /path"),
        ("mounts", ["/a,/b"], "is not /path"),
        ("runtime", "docker", "apptainer"),
    ],
)
def test_what_cannot_be_a_container(field: str, value: object, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ContainerConfig.model_validate({"image": "/i.sif", field: value})


def test_what_the_cluster_does_not_have(tmp_path: Path, commands: Path) -> None:
    require_container(ClusterConfig())
    with pytest.raises(UserError, match=r"cluster.container.image: /none/x.sif does not exist; give an image"):
        require_container(_cluster(image="/none/x.sif"))
    pyxis = _cluster(image="docker://a/b", runtime="pyxis")
    write_command(commands, "srun", "echo '  --label'")
    with pytest.raises(UserError, match=r"runtime: pyxis, but srun here knows no --container-image"):
        require_container(pyxis)
    write_command(commands, "srun", "echo '  --container-image=[USER@][REGISTRY#]IMAGE[:TAG]|PATH'")
    require_container(pyxis)
    with pytest.raises(UserError, match=r"/a,b has a comma or colon"):
        command_words(_cluster(image=str(tmp_path)), _RUN, [Path("/a,b")])
