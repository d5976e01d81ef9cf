"""Names and sizes of the HDF5 file that a token store is exported to; docs/token-store.md describes it."""

FORMAT, FORMAT_VERSION = "trainwright tokens", 1
MASKED_VERSION = 2
"""Of a file with a loss mask, which readers of version 1 would leave out unsaid."""
TOKENS, DOCUMENTS, TOKENIZER, SHA256 = "tokens", "documents", "tokenizer", "sha256"
LOSS_MASK = "loss_mask"
CHUNK = 1 << 17
"""Tokens, or offsets, of one chunk with its checksum."""
