"""Lines 1 and 2: random samples from a token store against a memory map, uint16 and int64 for torch.

Run: make bench-storage ARGS=read_samples
"""

from pathlib import Path

from trainwright.storage.tokens.reader import TokenStore, open_store

from .corpus import Corpus, open_corpus
from .formats import our_store
from .readers import Read, by_number, check, memmap, nanogpt, nanogpt_twice, ours, ours_torch, random_batches
from .report import Row, rates
from .settings import LENGTH, Settings, start
from .timing import Comparison, alternate


def measure(settings: Settings) -> bool:
    """Print both tables; whether the figures were reached."""
    corpus = open_corpus(settings)
    folder = our_store(settings, corpus)
    good = rates(
        "1. Random samples of 2,049 uint16 tokens, batches of 16, against a loop of memory map slices",
        _plain(settings, corpus, folder),
    )
    if not settings.peers:
        return good
    return good & rates(
        "2. The same as int64 torch batches, against nanoGPT's way with a memory map", _torch(settings, corpus, folder)
    )


def _plain(settings: Settings, corpus: Corpus, folder: Path) -> list[Row]:
    store = open_store(folder)
    baseline = memmap(corpus.tokens)
    return [
        Row("new array each batch", _pair(settings, corpus, ours(store), baseline), 1.0),
        Row("one array used again", _pair(settings, corpus, ours(store, reuse=True), baseline)),
        Row("without mapping (plain reads)", _pair(settings, corpus, ours(_plain_store(folder)), baseline)),
        Row("the baseline against itself", _pair(settings, corpus, memmap(corpus.tokens), baseline)),
    ]


def _plain_store(folder: Path) -> TokenStore:
    return open_store(folder, how="plain")


def _torch(settings: Settings, corpus: Corpus, folder: Path) -> list[Row]:
    import torch

    torch.set_num_threads(1)
    store = open_store(folder)
    fresh, again = ours_torch(store), ours_torch(store, reuse=True)
    once, twice = nanogpt(corpus.tokens), nanogpt_twice(corpus.tokens)
    check(once, corpus.tokens, random_batches((len(corpus.tokens) - 1) // LENGTH))
    return [
        Row("new tensor each batch; baseline copies a sample once", _pair(settings, corpus, fresh, once), 2.5),
        Row("one tensor used again", _pair(settings, corpus, again, once)),
        Row("new tensor; baseline copies inputs and targets", _pair(settings, corpus, fresh, twice)),
    ]


def _pair(settings: Settings, corpus: Corpus, candidate: Read, baseline: Read) -> Comparison:
    """Both warmed by one pass over all samples, which also checks every chunk, then timed in turns."""
    batches = random_batches((len(corpus.tokens) - 1) // LENGTH)
    check(candidate, corpus.tokens, batches)
    for batch in batches:
        candidate(batch)
        baseline(batch)
    works = by_number(candidate, batches), by_number(baseline, batches)
    return alternate(*works, settings.seconds, settings.rounds)


if __name__ == "__main__":
    start(measure)
