"""What a rank runs: the trainer and its engines."""
