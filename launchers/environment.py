"""Which variables pass from the submitting shell into a job: an allow-list, the same for Slurm and for this machine."""

import netrc
import os
import re
from collections.abc import Sequence

from ..config.cluster import ClusterConfig

PASSED = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "SHELL", "TZ", "USER")
"""Always passed. What else a job needs is named in cluster.environment."""
_PASSED_HERE = ("CUDA_VISIBLE_DEVICES",)
"""Passed on this machine too: which of its GPUs are ours is said by this shell, and on a cluster by Slurm."""


def passed_names(cluster: ClusterConfig, more: Sequence[str] = ()) -> list[str]:
    """Names of the variables that pass, sorted."""
    here = _PASSED_HERE if cluster.scheduler == "local" else ()
    return sorted({*PASSED, *here, *cluster.environment, *more})


def passed_values(cluster: ClusterConfig, more: Sequence[str] = ()) -> dict[str, str]:
    """The variables that pass and are set here. Secrets may be among them: never print the values."""
    return {name: os.environ[name] for name in passed_names(cluster, more) if name in os.environ}


def exported_names(cluster: ClusterConfig, more: Sequence[str] = ()) -> list[str]:
    """Those of the names whose values Slurm may see: keys go into a job by a private file instead (keys.py)."""
    return [name for name in passed_names(cluster, more) if not is_secret(name)]


def slurm_values(cluster: ClusterConfig) -> dict[str, str]:
    """SLURM_CONF as the cluster section or this shell has it; no other SLURM_ or SBATCH_ variable may leak."""
    conf = cluster.slurm_conf or os.environ.get("SLURM_CONF")
    return {"SLURM_CONF": conf} if conf else {}


_SECRET = re.compile(
    r"(KEY|TOKEN|SECRET|PASS|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|COOKIE|AUTH|_PWD)S?(_|$)", re.IGNORECASE
)
_SHORTEST_SECRET = 8  # shorter ones would be found by chance


def is_secret(name: str) -> bool:
    """Whether a variable of this name is taken to hold a key."""
    return bool(_SECRET.search(name))


def secret_values() -> list[str]:
    """Values of this shell's variables that are keys by their names, and netrc's passwords. Never print them."""
    values = {value for name, value in os.environ.items() if is_secret(name)} | _netrc_passwords()
    return sorted((value for value in values if len(value) >= _SHORTEST_SECRET), key=len, reverse=True)


def _netrc_passwords() -> set[str]:
    try:
        return {password for _, _, password in netrc.netrc().hosts.values() if password}
    except (OSError, netrc.NetrcParseError):
        return set()
