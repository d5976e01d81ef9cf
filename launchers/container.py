"""Ranks in a container: the words before their command, options of srun, and whether the cluster has what it takes."""

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..config.cluster import ClusterConfig
from ..config.container import ContainerConfig
from ..config.errors import UserError
from ..config.run import RunConfig
from ..config.rundir import RunDir
from ..config.urls import is_url

_PATIENCE_S = 20.0


def command_words(cluster: ClusterConfig, directory: Path, seen: Sequence[Path]) -> list[str]:
    """What stands before a rank's own command. `seen`: folders that it needs from outside."""
    container = cluster.container
    if container is None or container.runtime != "apptainer":
        return []
    gpus = ["--nv"] if cluster.gpus_per_node else []
    binds = [word for mount in _mounts(container, seen) for word in ("--bind", mount)]
    # Packages in the user's home would come before those of the image.
    own = ["--pwd", str(directory), "--env", "PYTHONNOUSERSITE=1"]
    return ["apptainer", "exec", *gpus, *own, *binds, container.image]


def srun_options(cluster: ClusterConfig, directory: Path, seen: Sequence[Path]) -> list[str]:
    """Options of srun, quoted for the shell."""
    container = cluster.container
    if container is None or container.runtime != "pyxis":
        return []
    mounts = [mount if ":" in mount else f"{mount}:{mount}" for mount in _mounts(container, seen)]
    options = [
        f"--container-image={container.image}",
        f"--container-mounts={','.join(mounts)}",
        f"--container-workdir={directory}",
    ]
    return [shlex.quote(option) for option in options]


def folders_of(run_dir: RunDir, run: RunConfig) -> tuple[Path, ...]:
    """Folders that the ranks of a run read and write."""
    stores = [source.store for source in run.data.train if not is_url(source.store)]
    starts = [start for start in (run.checkpoint.resume_from, run.checkpoint.init_from) if start]
    return (run_dir.path.parent, *(Path(path) for path in (*stores, *starts)))


def _mounts(container: ContainerConfig, seen: Sequence[Path]) -> list[str]:
    """Each folder once; a folder inside another that is there comes with it."""
    paths = sorted({str(path) for path in seen})
    outer = [path for path in paths if not any(path.startswith(f"{other}/") for other in paths)]
    for path in outer:
        if "," in path or ":" in path:
            raise UserError("cluster.container", f"{path} has a comma or colon", "give the folder a plain name")
    return [*outer, *(mount for mount in container.mounts if mount not in outer)]


def require_container(cluster: ClusterConfig) -> None:
    """UserError if the image is not there, or srun does not know containers."""
    container = cluster.container
    if container is None:
        return
    if container.image.startswith("/") and not Path(container.image).exists():
        remedy = "give an image that this machine and the nodes see, or a registry's name"
        raise UserError("cluster.container.image", f"{container.image} does not exist", remedy)
    if container.runtime == "pyxis" and "--container-image" not in _srun_help():
        problem = "pyxis, but srun here knows no --container-image"
        raise UserError("cluster.container.runtime", problem, "set apptainer, or ask the admins for pyxis and enroot")


def _srun_help() -> str:
    try:
        return subprocess.run(
            ["srun", "--help"], capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
