"""Every engine and layout against transformers on one rank: loss, gradient norm, every gradient, state; and mistakes.

The cases go through `verify-layout`'s own process, one after another.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainwright.config.loading import dump_run, load_run
from trainwright.config.model_file import model_config
from trainwright.config.model_reader import read_model
from trainwright.config.shrinking import shrink

from ..integration.real_runs import RUN_FILE, WHOLE
from .cases import DEEPSPEED, IN_TEST, MEGATRON, TRANSFORMER_ENGINE, UNMARKED, WITH_TRANSFORMER_ENGINE, Case
from .mutations import SEEDED, UPSTREAM

pytestmark = pytest.mark.ranks
_ROOT = Path(__file__).resolve().parent.parent.parent


def _chosen(cases: list[Case]) -> list[Case]:
    """All of them in the whole matrix; in `make test` those that have most in them."""
    return cases if WHOLE else [case for case in cases if case.name in IN_TEST]


class Verifier:
    """See verifier.py."""

    def __init__(self, folder: Path, engine: str) -> None:
        self._folder, self._count = folder, 0
        self._log = (folder / "log.txt").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.contracts.verifier", engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=_ROOT,
        )

    def verify(self, case: Case, mutation: str | None = None) -> dict[str, Any]:
        """Make the case's run small and compute it."""
        self._count += 1
        folder = self._folder / f"{self._count}-{case.name}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(case.model.config()))
        (folder / "run.yaml").write_text(RUN_FILE)
        given = load_run(folder / "run.yaml", case.overrides)
        small, shape = shrink(given, read_model(folder))
        (folder / "run.yaml").write_text(dump_run(small))
        (folder / "config.json").write_text(json.dumps(model_config(shape)))
        assert read_model(folder) == shape
        assert self._process.stdin
        assert self._process.stdout
        question = {"folder": str(folder), "mutation": mutation}
        print(json.dumps(question), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "failed" not in answer, (answer, (self._folder / "log.txt").read_text()[-3000:])
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._log.close()


@pytest.fixture(scope="module")
def megatron(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verifier]:
    verifier = Verifier(tmp_path_factory.mktemp("megatron"), "megatron")
    yield verifier
    verifier.close()


@pytest.fixture(scope="module")
def deepspeed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verifier]:
    verifier = Verifier(tmp_path_factory.mktemp("deepspeed"), "deepspeed")
    yield verifier
    verifier.close()


@pytest.mark.parametrize("case", _chosen(MEGATRON), ids=lambda case: case.name)
def test_megatron_computes_what_one_rank_computes(megatron: Verifier, case: Case) -> None:
    _agrees(megatron, case)


@pytest.mark.parametrize("name", sorted(WITH_TRANSFORMER_ENGINE) if WHOLE else ["etp2", "tp2-sp"])
def test_transformer_engines_layers_compute_it_too(megatron: Verifier, name: str) -> None:
    [case] = [case for case in MEGATRON if case.name == name]
    _agrees(megatron, case, TRANSFORMER_ENGINE)
    if name == "tp2-sp":  # and those layers are what is computed with
        assert megatron.verify(case, UNMARKED)["findings"]


@pytest.mark.parametrize("case", _chosen(DEEPSPEED), ids=lambda case: case.name)
def test_deepspeed_computes_what_one_rank_computes(deepspeed: Verifier, case: Case) -> None:
    _agrees(deepspeed, case)


def _agrees(verifier: Verifier, case: Case, change: str | None = None) -> None:
    answer = verifier.verify(case, change)
    largest = answer["largest"]
    words = ", ".join(
        f"{kind} {largest[kind]:.1e}" for kind in ("loss, step 1", "grad_norm, step 1", "gradients, step 1")
    )
    print(f"{case.name}{f', {change}' if change else ''}: {answer['layout']}: {words}; {answer['seconds']} s")
    assert answer["findings"] == []
    assert largest["gradients, step 1"] > 0  # two codes never round alike


@pytest.mark.parametrize("mistake", [*SEEDED, *UPSTREAM])
def test_a_mistake_in_the_engine_is_found(request: pytest.FixtureRequest, mistake: str) -> None:
    _, case = (SEEDED | UPSTREAM)[mistake]
    verifier = request.getfixturevalue("deepspeed" if "DeepSpeed" in mistake else "megatron")
    answer = verifier.verify(case, mistake)
    print(f"{mistake}: {len(answer['findings'])} findings, first: {answer['findings'][:1]}")
    assert answer["findings"]
