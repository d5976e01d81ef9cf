"""The DeepSpeed engine: transformers' model under ZeRO. Import modules only after compat.prepare()."""
