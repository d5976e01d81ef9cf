"""What every section of the run file shares."""

from pydantic import BaseModel, ConfigDict

SLURM_WORD = r"^[A-Za-z0-9_.,@%+=:/\-\[\]]+$"
"""What may stand in an #SBATCH line."""


class Section(BaseModel):
    """One frozen section of the run file: unknown keys are refused, every field carries a sentence.

    The sentences are for readers and the documentation (scripts/docs_pages.py); to read them at every start is slow.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)
