"""The `cluster.container` section: the image in which training ranks run."""

from typing import Literal

from pydantic import Field, field_validator

from .base import Section


class ContainerConfig(Section):
    """A container for the ranks of training jobs; the batch script and other jobs run outside of it."""

    image: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_.,@%+=:/#\-]+$")
    """Image: an absolute path that the nodes see too (.sif, .sqsh), or a registry's name in the runtime's words."""
    runtime: Literal["apptainer", "pyxis"] = "apptainer"
    """What starts it: `apptainer exec` in each rank's place, or srun itself by NVIDIA's pyxis and enroot."""
    python: str = Field(default="python3", min_length=1)
    """Interpreter in the image, with Trainwright's requirements. The code is the run's own snapshot."""
    mounts: list[str] = Field(default_factory=list)
    """More folders to be seen inside, as `/path`, `/path:/inside` or `/path:/inside:ro`. The runs folder, token stores
    and checkpoints that the run file names are seen without it."""

    @field_validator("image")
    @classmethod
    def _not_relative(cls, image: str) -> str:
        if image.startswith((".", "~")) or (image.endswith((".sif", ".sqsh")) and not image.startswith("/")):
            raise ValueError(
                "give an absolute path, or a registry's name such as docker://nvcr.io/nvidia/pytorch:25.10-py3"
            )
        return image

    @field_validator("mounts")
    @classmethod
    def _absolute(cls, mounts: list[str]) -> list[str]:
        for mount in mounts:
            parts = mount.split(":")
            if not 1 <= len(parts) <= 3 or not all(part.startswith("/") for part in parts[:2]) or "," in mount:
                raise ValueError(f"{mount!r} is not /path, /path:/inside or /path:/inside:ro")
        return mounts
