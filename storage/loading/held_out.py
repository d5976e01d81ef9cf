"""Held-out stores as training data: each by itself, in the data order of a mixture of one, without later stages."""

from ...config.data import Source
from ...config.errors import FoundBad, UserError
from ...config.fill_in_the_middle import FillInTheMiddle
from ...config.model import ModelShape
from ...config.run import RunConfig
from .training_data import TrainingData


def held_out_data(run: RunConfig, model: ModelShape, tokenizer: str) -> dict[str, TrainingData]:
    """Name of each of evaluation.stores -> its samples, masked and packed as the run's own.

    Raises UserError or FoundBad naming the store by its field: one that cannot be read, does not suit the model, is of
    another tokenizer than that with the fingerprint `tokenizer`, or is trained on.
    """
    found = {}
    trained = {source.store for source in run.data.train}
    for number, held in enumerate(run.evaluation.stores):
        field = f"evaluation.stores.{number}.store"
        if held.store in trained:
            raise UserError(field, f"{held.store} is in data.train too", "hold another store out")
        alone = {
            "train": [Source(**held.model_dump())],
            "stages": [],
            "fill_in_the_middle": FillInTheMiddle(),
            "stage_to": None,
        }
        try:
            data = TrainingData.open(run.data.model_copy(update=alone))
            data.check_model(model)
        except FoundBad:
            raise
        except UserError as error:
            where = field if error.where.startswith("data.train") else error.where
            raise UserError(where, error.problem, error.remedy) from None
        if data.tokenizer_fingerprint != tokenizer:
            remedy = f"build it with --tokenizer of {run.data.train[0].store}"
            raise UserError(field, f"{held.store} has another tokenizer than the stores of data.train", remedy)
        found[held.label] = data
    return found
