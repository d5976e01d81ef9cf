"""Verdicts: the codes with which ranks end, for the trainer that gives them and the launcher that reads them."""

FINISHED, CRASHED = 0, 1
SAVED, UNHEALTHY, HUNG, DISK_REFUSED, DO_NOT_RESTART = 85, 86, 87, 88, 93
"""All saved, restart me; this node is bad; no progress; a checkpoint could not be written; a restart would not help."""
