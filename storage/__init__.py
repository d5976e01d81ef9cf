"""Token stores, data order, checkpoints, and the names of tensors."""
