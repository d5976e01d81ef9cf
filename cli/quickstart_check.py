"""What can be wrong with a quickstart is said before anything is made."""

import shutil
import tempfile
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from ..config.errors import UserError
from ..config.layout_rules import layout_of
from ..config.loading import load_run
from ..config.model_reader import read_model

_MODELS = {"quickstart.yaml": "tiny-llama", "quickstart-moe.yaml": "tiny-qwen3-moe"}


def run_file_name(moe: bool) -> str:
    """The run file of the dense quickstart, or of the one with experts."""
    return "quickstart-moe.yaml" if moe else "quickstart.yaml"


def copy_presets(folder: Path, name: str) -> Path:
    """Put the run file `name` and its model into `folder`; the run file's path."""
    with as_file(files("trainwright.presets")) as presets:
        shutil.copy(presets / name, folder)
        (folder / "presets").mkdir(exist_ok=True)
        shutil.copytree(presets / _MODELS[name], folder / "presets" / _MODELS[name], dirs_exist_ok=True)
    return folder / name


def check(folder: Path, text: Path | None, name: str, overrides: Sequence[str]) -> None:
    """Raises UserError if the folder, the text or an override is wrong. Writes nothing but a scratch folder."""
    if folder.exists() and not folder.is_dir():
        raise UserError("--folder", f"{folder} is not a folder", "give a folder, or a name that is free")
    if text is not None and not text.exists():
        raise UserError("--text", f"{text} does not exist", "give a folder with text, or a text file")
    with tempfile.TemporaryDirectory() as scratch:
        run_file = copy_presets(Path(scratch), name)
        try:
            run = load_run(run_file, overrides)
            if Path(run.model).is_relative_to(run_file.parent / "presets"):  # another one is read where it is used
                layout_of(run, read_model(Path(run.model)))
        except UserError as error:
            where = error.where.replace(scratch, str(folder))
            raise UserError(where, error.problem.replace(scratch, str(folder)), error.remedy) from None
