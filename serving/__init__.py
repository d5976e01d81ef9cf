"""From a checkpoint to an endpoint: export, vLLM, the front."""
