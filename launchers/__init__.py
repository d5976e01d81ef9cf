"""From a run file to processes: rendering, Submitit, supervisor, status, dev cluster."""
