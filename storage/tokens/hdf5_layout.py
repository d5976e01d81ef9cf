"""Names and sizes of the HDF5 file that a token store is exported to; docs/token-store.md describes it."""

FORMAT, FORMAT_VERSION = "trainwright tokens", 1
TOKENS, DOCUMENTS, TOKENIZER, SHA256 = "tokens", "documents", "tokenizer", "sha256"
CHUNK = 1 << 17
"""Tokens, or offsets, of one chunk with its checksum."""
