"""The digest of a store's files: BLAKE3, cryptographic, and on one core more than twice as fast as SHA-256.

It is written with its name, `blake3:` and 64 hexadecimal digits, so that another may follow. `b3sum FILE` prints the
digits.
"""

from blake3 import blake3 as new_digest

__all__ = ["digest_of", "digest_text", "new_digest"]


def digest_text(digest: new_digest) -> str:
    """What is written down of all that a digest was given."""
    return f"blake3:{digest.hexdigest()}"


def digest_of(data: bytes) -> str:
    """The digest of bytes."""
    return digest_text(new_digest(data))
