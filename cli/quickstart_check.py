"""What can be wrong with a quickstart is said before anything is made."""

import shutil
import tempfile
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from ..config.errors import UserError
from ..config.layout import layout_of
from ..config.loading import load_run
from ..config.model import read_model


def copy_presets(folder: Path) -> Path:
    """Put the run file and its model into `folder`; the run file's path."""
    with as_file(files("trainwright.presets")) as presets:
        shutil.copy(presets / "quickstart.yaml", folder)
        (folder / "presets").mkdir(exist_ok=True)
        shutil.copytree(presets / "tiny-llama", folder / "presets" / "tiny-llama", dirs_exist_ok=True)
    return folder / "quickstart.yaml"


def check(folder: Path, text: Path | None, overrides: Sequence[str]) -> None:
    """Raises UserError if the folder, the text or an override is wrong. Writes nothing but a scratch folder."""
    if folder.exists() and not folder.is_dir():
        raise UserError("--folder", f"{folder} is not a folder", "give a folder, or a name that is free")
    if text is not None and not text.exists():
        raise UserError("--text", f"{text} does not exist", "give a folder with text, or a text file")
    with tempfile.TemporaryDirectory() as scratch:
        run_file = copy_presets(Path(scratch))
        try:
            run = load_run(run_file, overrides)
            if Path(run.model).is_relative_to(run_file.parent / "presets"):  # another one is read where it is used
                layout_of(run, read_model(Path(run.model)))
        except UserError as error:
            where = error.where.replace(scratch, str(folder))
            raise UserError(where, error.problem.replace(scratch, str(folder)), error.remedy) from None
