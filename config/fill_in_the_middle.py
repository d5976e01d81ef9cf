"""The `data.fill_in_the_middle` section: documents whose middle is moved to their end."""

from pydantic import Field, model_validator

from .base import Section


class FillTokens(Section):
    """The three special tokens, as the tokenizer spells them."""

    prefix: str = "<|fim_prefix|>"
    """Stands before what comes first in the document."""
    middle: str = "<|fim_middle|>"
    """Stands before what is to be filled in."""
    suffix: str = "<|fim_suffix|>"
    """Stands before what comes last in the document."""

    @model_validator(mode="after")
    def _differ(self) -> "FillTokens":
        if len({self.prefix, self.middle, self.suffix}) < 3:
            raise ValueError(f"prefix {self.prefix!r}, middle {self.middle!r} and suffix {self.suffix!r} must differ")
        return self


class FillInTheMiddle(Section):
    """Fill in the middle: a part of the documents is cut in three, and their middle is predicted from both sides."""

    rate: float = Field(default=0.0, ge=0, le=1)
    """Share of the documents in samples to which it is done; 0 is off, 0.5 is usual."""
    spm_rate: float = Field(default=0.5, ge=0, le=1)
    """Share of these in which the suffix comes first (SPM); in the others the prefix does (PSM)."""
    tokens: FillTokens = FillTokens()
    """The special tokens, which the tokenizer must have."""
