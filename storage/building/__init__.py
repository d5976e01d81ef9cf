"""From sources to a token store: what `trainwright data build` does."""
