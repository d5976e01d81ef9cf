"""Rotary embeddings of positions that begin anew, in a process of its own: importing megatron-core changes torch."""

import subprocess
import sys

_CODE = """
import torch
from trainwright.parallelism import compat

compat.prepare()
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from trainwright.parallelism.megatron.rotary import RestartingRotary

settings = dict(rotary_percent=1.0, rotary_base=100, use_cpu_initialization=True)
plain, restarting = RotaryEmbedding(8, **settings)(5), RestartingRotary(8, **settings)
positions = torch.tensor([[0, 1, 2, 0, 1], [0, 0, 1, 2, 3]])
restarting.positions = positions
angles = restarting(5, packed_seq=False, cp_group=None)
assert angles.shape == (5, 2, 1, 8)
for row in range(2):
    for place in range(5):
        assert torch.equal(angles[place, row], plain[positions[row, place], 0])
try:
    restarting(5)
except AssertionError:
    print("positions are for one pass")
"""


def test_angles_are_those_of_the_positions_of_one_pass() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", _CODE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "positions are for one pass\n"
