"""Weights out of checkpoints that other tools have written: Megatron-LM's, DeepSpeed's and torch's distributed ones."""
