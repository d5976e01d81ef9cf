"""Export: same bytes whoever wrote the checkpoint, what transformers reads back, and nothing left when it fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainwright.cli.main import main
from trainwright.config.errors import FoundBad, UserError
from trainwright.config.model_reader import read_model
from trainwright.serving.export import ExportOptions, export_checkpoint
from trainwright.serving.safetensors_file import to_bfloat16
from trainwright.storage.checkpoints.checkpoint import find_checkpoint
from trainwright.storage.checkpoints.hf_weights import HuggingFaceWeights

from .small_run import LLAMA, make_run, weights_of

QWEN3 = {
    **LLAMA,
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "tie_word_embeddings": True,
    "vocab_size": 321,
}
GLM = {
    **{key: value for key, value in LLAMA.items() if key != "head_dim"},
    "architectures": ["Glm4MoeForCausalLM"],
    "model_type": "glm4_moe",
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "num_nextn_predict_layers": 1,
}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("config", [LLAMA, QWEN3], ids=["llama-untied", "qwen3-tied"])
def test_transformers_reads_equal_tensors(tmp_path: Path, config: dict[str, object]) -> None:
    run = make_run(tmp_path / "runs", config)
    exported = export_checkpoint(find_checkpoint(str(run.path)), tmp_path / "out", ExportOptions())
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    state = model.state_dict()
    for name, values in weights_of(run).items():
        assert state[name].dtype == torch.float32
        assert np.array_equal(state[name].numpy(), values), name
    assert exported.step == 5
    assert ("lm_head.weight" in (tmp_path / "out" / "model.safetensors").read_bytes()[:10000].decode("latin1")) == (
        not config["tie_word_embeddings"]
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.decode(tokenizer("def add")["input_ids"]) == "def add"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 0


def test_bytes_do_not_depend_on_who_wrote_the_checkpoint(tmp_path: Path) -> None:
    digests, weights = set(), set()
    for name, ranks in (("one", 1), ("three", 3)):
        run = make_run(tmp_path / name, num_ranks=ranks)
        out = tmp_path / f"out-{name}"
        digests.add(export_checkpoint(find_checkpoint(str(run.path)), out, ExportOptions()).weights_digest)
        weights.add((out / "model.safetensors").read_bytes())
    assert len(digests) == len(weights) == 1


def test_exports_are_deterministic_and_dtype_follows_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", precision="bf16")
    for name in ("a", "b"):
        exported = export_checkpoint(find_checkpoint(str(run.path)), tmp_path / name, ExportOptions())
        assert exported.dtype == "bfloat16"
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    state = AutoModelForCausalLM.from_pretrained(tmp_path / "a").state_dict()
    name, values = next(iter(weights_of(run).items()))
    assert np.array_equal(state[name].view(torch.uint16).numpy(), to_bfloat16(values))
    asked = export_checkpoint(find_checkpoint(str(run.path)), tmp_path / "c", ExportOptions(dtype="float32"))
    assert asked.weights_digest != exported.weights_digest


def test_biases_that_choose_experts_stay_float32(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", GLM, "bf16")
    config = json.loads(run.model_config.read_text())
    export_checkpoint(find_checkpoint(str(run.path)), tmp_path / "out", ExportOptions())
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    name = "model.layers.1.mlp.gate.e_score_correction_bias"
    bias = model.state_dict()[name]
    assert (model.dtype, bias.dtype) == (torch.bfloat16, torch.float32)
    assert np.array_equal(bias.numpy(), weights_of(run)[name])
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["num_nextn_predict_layers"], written["num_nextn_predict_layers"]) == (1, 0)
    assert ("head_dim" in config, written["head_dim"]) == (False, 16)


def test_layers_that_guess_further_tokens_are_left_out_when_weights_come_in(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", GLM)
    export_checkpoint(find_checkpoint(str(run.path)), tmp_path / "out", ExportOptions())
    model, file = read_model(run.model_config), tmp_path / "out" / "model.safetensors"
    tensors = load_file(file)
    further = {"model.layers.2.input_layernorm.weight": np.ones(64, np.float32)}
    save_file(tensors | further, file)
    with pytest.raises(UserError, match=r"holds model\.layers\.2\.input_layernorm\.weight, which the model does not"):
        HuggingFaceWeights(tmp_path / "out", model)
    save_file(tensors | further | {"model.layers.2.eh_proj.weight": np.zeros((64, 128), np.float32)}, file)
    HuggingFaceWeights(tmp_path / "out", model)


def test_an_adapter_has_no_logits_to_check(tmp_path: Path) -> None:
    """Its base is not in the folder that it writes."""
    run = make_run(tmp_path / "runs")
    with pytest.raises(SystemExit) as end:
        main(["export", str(run.path), str(tmp_path / "out"), "--adapter", "--check"])
    assert end.value.code == 2
    assert not (tmp_path / "out").exists()


def test_split_files_hold_the_same_weights(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs")
    whole = export_checkpoint(find_checkpoint(str(run.path)), tmp_path / "whole", ExportOptions())
    split = export_checkpoint(find_checkpoint(str(run.path)), tmp_path / "split", ExportOptions(shard_bytes=100_000))
    assert split.num_files > 2
    assert split.weights_digest == whole.weights_digest
    index = json.loads((tmp_path / "split" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == whole.num_bytes
    one = AutoModelForCausalLM.from_pretrained(tmp_path / "whole").state_dict()
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "split").state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_existing_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        export_checkpoint(find_checkpoint(str(run.path)), tmp_path / "out", ExportOptions())
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("harm", ["flip", "cut", "nan"])
def test_bad_checkpoint_is_found_and_nothing_is_left(tmp_path: Path, harm: str) -> None:
    run = make_run(tmp_path / "runs")
    path = run.checkpoint(5) / "rank-00000.safetensors"
    data = bytearray(path.read_bytes())
    if harm == "cut":
        data = data[:-1000]
    data[-500] ^= 0x40
    path.write_bytes(data)
    if harm == "nan":
        data[-4:] = np.array([np.nan], np.float32).tobytes()
        path.write_bytes(data)
        _bless(run.checkpoint(5))
    with pytest.raises(FoundBad, match=r"crc32c|bytes, not|NaN"):
        export_checkpoint(find_checkpoint(str(run.path)), tmp_path / "out", ExportOptions())
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs"]


def _bless(checkpoint: Path) -> None:
    """Write the changed file's checksum into the manifest, as if training itself had saved the value."""
    from trainwright.storage.checkpoints.checkpoint import file_crc32c
    from trainwright.storage.checkpoints.manifest import read_manifest, write_manifest

    manifest, name = read_manifest(checkpoint), "rank-00000.safetensors"
    manifest.files[name]["crc32c"] = file_crc32c(checkpoint / name)
    write_manifest(checkpoint, manifest)


def test_config_of_another_shape_is_found(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs")
    run.model_config.write_text(json.dumps({**LLAMA, "num_hidden_layers": 3}))
    with pytest.raises(FoundBad, match=r"model\.layers\.2"):
        export_checkpoint(find_checkpoint(str(run.path)), tmp_path / "out", ExportOptions())


def test_command_prints_json_and_imports_no_torch(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs")
    program = (
        "import argparse, sys; from trainwright.cli import export; parser = argparse.ArgumentParser();"
        "export.add_parser(parser.add_subparsers()); arguments = parser.parse_args(sys.argv[1:]);"
        "code = export.run(arguments); assert not {'torch', 'transformers'} & set(sys.modules); sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "export", f"{run.path}@5", str(tmp_path / "out"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["step"] == 5
    assert record["weights_digest"] == json.loads((tmp_path / "out" / "trainwright.json").read_text())["weights_digest"]


def test_logits_check_passes_its_own_model_and_catches_another(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs")
    export_checkpoint(find_checkpoint(str(run.path)), tmp_path / "out", ExportOptions())
    tokens = np.random.default_rng(0).integers(0, 320, (2, 16))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager")
    with torch.inference_mode():
        logits = model(torch.from_numpy(tokens)).logits.numpy()
    for scale, code in ((1.0, 0), (1.001, 3)):
        np.savez(tmp_path / "logits.npz", tokens=tokens, logits=logits * np.float32(scale))
        module = "trainwright.serving.logits_check"
        command = [sys.executable, "-m", module, str(tmp_path / "out"), str(tmp_path / "logits.npz")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, done.stderr
        assert json.loads(done.stdout)["passed"] == (code == 0)


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """On a filesystem smaller than the model, mounted in a mount namespace of its own."""
    run = make_run(tmp_path / "runs")
    disk = tmp_path / "disk"
    disk.mkdir()
    program = (
        "import argparse, sys; from trainwright.cli import export, main; parser = argparse.ArgumentParser();"
        "export.add_parser(parser.add_subparsers()); arguments = parser.parse_args(sys.argv[1:]);\n"
        "try: export.run(arguments)\nexcept OSError as error: main._report(error)"
    )
    command = [sys.executable, "-c", program, "export", str(run.path), str(disk / "out")]
    script = 'mount -t tmpfs -o size=200k none "$0" || exit 77; "$@"; code=$?; ls -A "$0"; exit $code'
    root = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    done = subprocess.run([*root, "sh", "-c", script, str(disk), *command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr
