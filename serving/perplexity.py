"""Perplexity of an exported model on token stores: each document by itself, by transformers."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config.errors import UserError
from ..storage.tokens.locations import Location
from ..storage.tokens.reader import TokenStore, open_store
from ..storage.tokens.tokenizer import take_tokenizer
from ..tracking.perplexity import perplexity

_ROWS = 8
_DOCUMENTS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """What a model makes of a store."""

    store: str
    documents: int
    tokens: int
    """Predicted tokens: all but the first of each window."""
    loss: float
    """Mean over them, in nats."""
    perplexity: float


def choose_device(device: str | None) -> str:
    """The device, or a GPU if there is one. Raises UserError for one that torch does not know or have."""
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        words = str(error).splitlines()[0]
        raise UserError(f"--device {device}", f"cannot be used here ({words})", "give cpu, cuda or cuda:N") from None
    return device


def load_model(folder: Path, dtype: str | None, device: str) -> Any:
    """The exported model on a device, to be evaluated; `dtype` None is that of the weights."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # of tensors that are loaded: nobody waits for them
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype) if dtype else "auto")
    return model.to(device).eval()


def perplexity_of(model: Any, folder: Path, place: Location, *, length: int, most_tokens: int) -> Perplexity:
    """Loss of the store's first tokens, up to `most_tokens`, in windows of `length` that never cross a document.

    Each token but a window's first is predicted once. Raises UserError if the store is not of the model's tokenizer.
    """
    store = open_store(place)
    if take_tokenizer(folder).fingerprint() != store.info.tokenizer_fingerprint:
        remedy = f"build the store with --tokenizer {folder}"
        raise UserError(f"--store {place}", f"has another tokenizer than {folder}", remedy)
    total, tokens, documents, end = 0.0, 0, 0, min(most_tokens, store.num_tokens)
    left = _windows(store, end, length)
    while windows := list(islice(left, _ROWS)):
        loss, counted = _loss(model, [window for window, _ in windows])
        total, tokens = total + loss, tokens + counted
        documents += sum(begins for _, begins in windows)
    if not tokens:
        raise UserError(f"--store {place}", "has no document of two tokens or more", "give another store")
    mean = total / tokens
    return Perplexity(store=str(place), documents=documents, tokens=tokens, loss=mean, perplexity=perplexity(mean))


def _windows(store: TokenStore, end: int, length: int) -> Iterator[tuple[NDArray[np.int64], bool]]:
    """Tokens of each window, and whether it is a document's first; neighbours share one token."""
    first, bound = 0, store.num_tokens
    while first < end:
        starts = [first, *store.document_index.following(np.array([first]), _DOCUMENTS_AT_ONCE)[0].tolist()]
        for start, stop in pairwise(starts):
            if start >= end or start == bound:
                return
            tokens = store.read(start, min(stop, end)).astype(np.int64)
            for at in range(0, max(1, len(tokens) - 1), length - 1):
                yield tokens[at : at + length], at == 0
        first = starts[-1]


def _loss(model: Any, windows: list[NDArray[np.int64]]) -> tuple[float, int]:
    """Sum of the losses and number of predictions; rows are filled up behind, where causal attention sees nothing."""
    import torch
    from torch.nn.functional import cross_entropy

    longest = max(len(window) for window in windows)
    rows = np.zeros((len(windows), longest), np.int64)
    counted = np.zeros((len(windows), longest - 1), bool)
    for row, window in enumerate(windows):
        rows[row, : len(window)] = window
        counted[row, : len(window) - 1] = True
    if longest < 2:
        return 0.0, 0
    ids = torch.from_numpy(rows).to(model.device)
    with torch.inference_mode():
        logits = model(ids[:, :-1]).logits.float()
    losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").double().cpu()
    return float(losses[torch.from_numpy(counted.reshape(-1))].sum()), int(counted.sum())
