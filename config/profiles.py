"""Profiles: named defaults of the `cluster` section. Two are built in; others are YAML files of the same fields."""

import os
from pathlib import Path
from typing import Any

from .errors import UserError
from .yaml_file import read_mapping

BUILT_IN: dict[str, dict[str, Any]] = {
    "local": {"scheduler": "local"},
    "dev": {
        "scheduler": "slurm",
        "partition": "main",
        "ranks_per_node": 2,
        "time_limit": "01:00:00",
        "network_interface": None,
        "cpu_bind": "none",
    },
}


def dev_cluster_folder() -> Path:
    """Where `trainwright cluster dev up` keeps the dev cluster: $TRAINWRIGHT_DEV_CLUSTER, or a fixed place in /tmp."""
    return Path(os.environ.get("TRAINWRIGHT_DEV_CLUSTER") or "/tmp/trainwright-dev-cluster").absolute()


def profile_folders(beside: Path) -> list[Path]:
    """Where NAME.yaml is looked for: beside the run file, then in the user's config folder."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [beside, home / "trainwright" / "profiles"]


def load_profile(name: str, beside: Path) -> dict[str, Any]:
    """Fields of profile `name`; a file wins over a built-in of the same name."""
    if "/" in name or name.startswith("."):
        raise UserError("cluster.profile", f"{name!r} is not a name", "give the profile's name, not its path")
    for folder in profile_folders(beside):
        path = folder / f"{name}.yaml"
        if path.is_file():
            fields = read_mapping(path)
            if "profile" in fields:
                raise UserError(str(path), "a profile cannot name a profile", "remove the field `profile`")
            return fields
    if name == "dev":
        return {**BUILT_IN[name], "slurm_conf": str(dev_cluster_folder() / "slurm.conf")}
    if name in BUILT_IN:
        return dict(BUILT_IN[name])
    places = " or ".join(str(folder) for folder in profile_folders(beside))
    raise UserError("cluster.profile", f"no profile {name!r}", f"use local or dev, or write {name}.yaml in {places}")
