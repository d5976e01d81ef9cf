"""A real multi-node Slurm on this machine, for tests and for people who want to try one."""

from .cluster import DevClusterStatus, down, status, up
from .settings import ClusterSettings

__all__ = ["ClusterSettings", "DevClusterStatus", "down", "status", "up"]
