"""The megatron-core engine: its model, layers, state and groups. Import modules only after compat.prepare()."""
