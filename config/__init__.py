"""The run file as one frozen tree, layout arithmetic, and every path of a run directory."""
