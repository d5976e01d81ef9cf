"""Scripts that sbatch gets, as Jinja templates."""
