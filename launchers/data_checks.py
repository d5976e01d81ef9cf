"""What is checked of a run's token stores before it is submitted; no token is read for it."""

import sys
from pathlib import Path

from ..config.errors import UserError
from ..config.model import ModelShape
from ..config.run import RunConfig
from ..storage.loading.training_data import TrainingData
from ..storage.tokens.tokenizer import take_tokenizer


def check_data(run: RunConfig, data: TrainingData, model: ModelShape) -> None:
    """Files, tokenizer and quality of the stores.

    Raises FoundBad naming a file that is missing or cut off, UserError for what does not suit the model or, unless
    data.quality says otherwise, went wrong when a store was made.
    """
    data.check_files()
    data.check_model(model)
    folder = Path(run.model).parent
    if (folder / "tokenizer.json").is_file() and take_tokenizer(folder).fingerprint() != data.tokenizer_fingerprint:
        remedy = f"build them with --tokenizer {folder}, or take the model's tokenizer.json away"
        raise UserError("data.train", f"the stores' tokenizer is not that of the model in {folder}", remedy)
    if run.data.quality == "off":
        return
    for where, problem in data.quality_problems(run.data.max_unknown):
        if run.data.quality == "stop":
            raise UserError(where, problem, "build it with the right tokenizer, or set data.quality=warn")
        print(f"warning: {where}: {problem}", file=sys.stderr)
