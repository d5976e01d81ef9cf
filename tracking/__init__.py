"""What happened: ledger, metrics, W&B, console, plots."""
