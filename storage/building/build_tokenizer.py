"""Which tokenizer a build takes: the one that was named, the one that a source holds, or one trained on the text."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ...config.errors import UserError
from ..tokens.tokenizer import StoreTokenizer, take_tokenizer, train_tokenizer
from .inputs.base import TextInput, TokenInput

_TRAINING_BYTES = 512 << 20

Progress = Callable[[str, int, int], None]


def choose_tokenizer(
    inputs: Sequence[TextInput | TokenInput], named: Path | None, vocab_size: int | None, progress: Progress
) -> StoreTokenizer:
    """The tokenizer of a store. `vocab_size` is that of one to train; None means what is usual, where one is trained.

    Raises UserError where sources hold another one than was named, or two of them, or token ids of an unknown one.
    """
    tokens = [each for each in inputs if isinstance(each, TokenInput)]
    own = [(each.path, tokenizer) for each in tokens for tokenizer in [each.own_tokenizer()] if tokenizer is not None]
    given = take_tokenizer(named) if named is not None else None
    if vocab_size is not None and tokens:
        problem = f"{vocab_size}, but {tokens[0].path} holds token ids, and no tokenizer is trained"
        raise UserError("--vocab-size", problem, "leave it out")
    if given is None and tokens and not own:
        problem = f"not given, and {tokens[0].path} holds token ids alone"
        raise UserError("--tokenizer", problem, "give the tokenizer that made them")
    chosen = given or (own[0][1] if own else None)
    for path, tokenizer in own:
        if chosen is not None and tokenizer.fingerprint() != chosen.fingerprint():
            other = f"--tokenizer {named}" if given else own[0][0]
            problem = f"holds token ids of another tokenizer than {other}"
            raise UserError(f"SOURCE {path}", problem, "build stores of one tokenizer each")
    if chosen is not None:
        return chosen
    return _train([each for each in inputs if isinstance(each, TextInput)], vocab_size, progress)


def _train(inputs: Sequence[TextInput], vocab_size: int | None, progress: Progress) -> StoreTokenizer:
    """Train on all of the text up to about 512 MiB, else on every n-th document, so that about that much is used."""
    every = max(1, -(-sum(each.text_bytes for each in inputs) // _TRAINING_BYTES))
    parts = [each.sample(every) for each in inputs]
    total = sum(part.size_bytes for part in parts)

    def watched() -> Iterator[str]:
        done = 0
        for part in parts:
            for text, size in part.texts():
                yield text
                done += size
                progress("read", done, total)
        progress("train", 0, 0)

    return train_tokenizer(watched(), vocab_size)
