"""From token stores to batches: the data order, mixtures, and what the trainer reads."""
