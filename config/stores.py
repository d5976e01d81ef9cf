"""A token store as run files name it: where it lies, which generation, what it is called."""

from pathlib import PurePath

from pydantic import Field, field_validator

from .base import Section
from .urls import check_url, is_url


class Store(Section):
    """A token store."""

    store: str
    """Folder of a token store, relative to the run file, or its URL in an object store, such as
    s3://bucket/store.zarr; credentials come from the environment (docs/token-store.md)."""
    generation: int | None = Field(default=None, ge=1)
    """Generation of the store (`data append` makes the next); the newest, if not given, when the run is submitted."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """What `data.stages`, metrics and reports call this store; its folder's name without `.zarr`, if not given."""

    @field_validator("store")
    @classmethod
    def _place(cls, store: str) -> str:
        return check_url(store) if is_url(store) else store

    @property
    def label(self) -> str:
        """Its name, given or not."""
        return self.name or PurePath(self.store).name.removesuffix(".zarr") or self.store
