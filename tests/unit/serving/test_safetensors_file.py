"""Our streaming writer against the safetensors library and torch's rounding."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from trainwright.config.errors import UserError
from trainwright.serving.safetensors_file import Tensor, to_bfloat16, weights_digest, write_safetensors


def test_bfloat16_rounds_as_torch_does() -> None:
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2**32, 200_000, dtype=np.uint32)
    ties = (bits & np.uint32(0xFFFF0000)) | np.uint32(0x8000)  # exactly between two bfloat16
    special = np.array([0x7F800000, 0xFF800000, 0x7F7FFFFF, 0x80000000, 1], np.uint32)
    values = np.concatenate([bits, ties, special]).view(np.float32)
    finite = values[~np.isnan(values)]
    expected = torch.from_numpy(finite).to(torch.bfloat16).view(torch.uint16).numpy()
    assert np.array_equal(to_bfloat16(finite), expected)


def test_nan_stays_nan() -> None:
    values = np.array([0x7F800001, 0xFFFFFFFF, 0x7FC00000], np.uint32).view(np.float32)
    bits = torch.from_numpy(to_bfloat16(values).astype(np.int32)).to(torch.int16)
    assert torch.isnan(bits.view(torch.bfloat16)).all()


def test_library_reads_what_we_write(tmp_path: Path) -> None:
    source = {"a": np.arange(12, dtype=np.float32).reshape(4, 3), "b": np.arange(5, dtype=np.float32)}
    tensors = [Tensor(name=name, dtype="float32", shape=values.shape) for name, values in source.items()]
    digests = write_safetensors(tmp_path / "x", tensors, lambda name, row, n: source[name][row : row + n])
    loaded = load_file(tmp_path / "x")
    assert all(np.array_equal(loaded[name], source[name]) for name in source)
    with safe_open(tmp_path / "x", "np") as file:
        assert file.metadata() == {"format": "pt"}
    assert set(digests) == {"a", "b"}
    header_bytes = int.from_bytes((tmp_path / "x").read_bytes()[:8], "little")
    assert header_bytes % 8 == 0


def test_digest_depends_on_name_type_shape_and_bytes_not_on_order() -> None:
    one = Tensor(name="a", dtype="float32", shape=(2, 3))
    two = Tensor(name="b", dtype="float32", shape=(2,))
    sha = {"a": "1", "b": "2"}
    digest = weights_digest([one, two], sha)
    assert digest == weights_digest([two, one], sha)
    others = [
        weights_digest([Tensor(name="a", dtype="float32", shape=(3, 2)), two], sha),
        weights_digest([Tensor(name="a", dtype="bfloat16", shape=(2, 3)), two], sha),
        weights_digest([one, two], {"a": "2", "b": "1"}),
        weights_digest([one], sha),
    ]
    assert len({digest, *others}) == 5


def test_a_large_tensor_is_never_whole_in_memory(tmp_path: Path) -> None:
    """512 MB are written while the peak stays near one piece (64 MB, its copies included)."""
    tensor = Tensor(name="big", dtype="bfloat16", shape=(65536, 2048))
    tracemalloc.start()
    write_safetensors(tmp_path / "x", [tensor], lambda _, row, n: np.full((n, 2048), row, np.float32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "x").stat().st_size > 65536 * 2048 * 2
    assert peak < 450 << 20


def test_float16_is_what_numpy_and_torch_make_and_never_infinite(tmp_path: Path) -> None:
    values = np.random.default_rng(5).normal(0, 100, (64, 8)).astype(np.float32)
    tensor = Tensor(name="a", dtype="float16", shape=values.shape)
    write_safetensors(tmp_path / "a", [tensor], lambda name, row, count: values[row : row + count])
    found = load_file(tmp_path / "a")["a"]
    assert found.dtype == np.float16
    assert torch.equal(torch.from_numpy(found), torch.from_numpy(values).half())
    values[3, 3] = 70_000
    with pytest.raises(UserError, match=r"--dtype: float16 cannot hold 7e\+04, which is in a; export as bfloat16"):
        write_safetensors(tmp_path / "b", [tensor], lambda name, row, count: values[row : row + count])
