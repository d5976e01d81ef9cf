"""`verify-layout` as a user runs it: a good layout gets its certificate, a wrong one is named; nothing else is left."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from .conftest import CLI

pytestmark = pytest.mark.ranks
_LAYOUT = ("cluster.ranks_per_node=2", "parallelism.tensor=2", "parallelism.sequence=true")
_MISTAKE = """\
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder

NAME = "trainwright.parallelism.megatron.layers"


class Unmarked(MetaPathFinder):
    def find_spec(self, fullname, path, target=None):
        spec = PathFinder.find_spec(fullname, path) if fullname == NAME else None
        if spec is not None:
            run = spec.loader.exec_module

            def exec_module(module):
                run(module)
                original = module.RMSNorm.__init__

                def unmarked(self, *args, **kwargs):
                    original(self, *args, **kwargs)
                    self.weight.sequence_parallel = False

                module.RMSNorm.__init__ = unmarked

            spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Unmarked())
"""
"""A sitecustomize that takes the mark of sequence parallel off all norms."""


def trainwright(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *words], capture_output=True, text=True, env={**os.environ, **variables}, timeout=300)


def test_a_good_layout_gets_its_certificate(trainable: Path) -> None:
    before = trainwright("plan", str(trainable), *_LAYOUT)
    assert "proof       not verified; `trainwright verify-layout`" in before.stdout
    done = trainwright("verify-layout", str(trainable), *_LAYOUT, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["verified"]
    assert record["layout"] == {"tensor": 2, "pipeline": 1, "data": 1}
    assert 0 < record["largest"]["gradients, step 1"] <= 1e-5
    assert Path(record["certificate"]).is_file()
    print(f"{record['seconds']} s, largest {record['largest']}")
    assert "proof       verified at 20" in trainwright("plan", str(trainable), *_LAYOUT).stdout
    submitted = trainwright("submit", str(trainable), *_LAYOUT, "train.steps=1", "--wait")
    assert submitted.returncode == 0, submitted.stderr
    assert "not verified" not in submitted.stderr
    other = trainwright("submit", str(trainable), "cluster.ranks_per_node=2", "train.steps=0", "--wait")
    assert other.returncode == 0, other.stderr
    assert "warning: the layout is not verified; `trainwright verify-layout`" in other.stderr


def test_a_wrong_one_is_named(trainable: Path, tmp_path: Path) -> None:
    (tmp_path / "mistake").mkdir()
    (tmp_path / "mistake" / "sitecustomize.py").write_text(_MISTAKE)
    path = os.pathsep.join([str(tmp_path / "mistake"), os.environ.get("PYTHONPATH", "")])
    done = trainwright("verify-layout", str(trainable), *_LAYOUT, PYTHONPATH=path)
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert "does not compute what one rank computes" in last
    assert "the first in grad_norm on rank 0, step 1" in last
    assert "gradient of model.layers.0.input_layernorm.weight, step 1" in done.stdout
    assert not (trainable.parent / "runs").exists()


def test_a_broken_rule_is_the_users_mistake(trainable: Path) -> None:
    done = trainwright("verify-layout", str(trainable), "parallelism.tensor=3")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "num_attention_heads" in done.stderr
