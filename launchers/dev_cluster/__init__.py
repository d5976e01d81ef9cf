"""A real multi-node Slurm on this machine, for tests and for people who want to try one."""

from .cluster import DevClusterStatus, down, status, up

__all__ = ["DevClusterStatus", "down", "status", "up"]
