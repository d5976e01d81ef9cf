"""Proof that a layout computes what one rank computes: the run made small, on CPU ranks, tensor by tensor."""
