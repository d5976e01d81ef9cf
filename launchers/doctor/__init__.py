"""What will and will not work on a Slurm cluster, told from its configuration and proved by a canary job."""
