"""The table of mistakes: what is done to a good folder, the command, the words of the answer, the exit code.

The folder holds run.yaml (a tiny Llama), model/config.json, store.zarr, other.zarr (another tokenizer), text/,
values.jsonl (features of its files), features.db (made of them), runs/small (a run with a checkpoint of step 5),
runs/started (without one) and exported/ (a taken folder).
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Change = Callable[[Path], object]


@dataclass(frozen=True)
class Mistake:
    """One mistake; `words` must all stand in the one line."""

    command: str
    words: tuple[str, ...]
    change: Change = lambda folder: None
    code: int = 2

    @property
    def name(self) -> str:
        return f"{self.command} {self.words[0]}"[:70]


def edit(old: str, new: str, file: str = "run.yaml") -> Change:
    """Replace a piece of a file's text, which must be there."""

    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))

    return change


def edit_bytes(old: bytes, new: bytes, file: str) -> Change:
    """Replace a piece of a file's bytes wherever it stands."""

    def change(folder: Path) -> None:
        content = (folder / file).read_bytes()
        assert old in content
        (folder / file).write_bytes(content.replace(old, new))

    return change


def write(file: str, content: str | bytes) -> Change:
    """Write a whole file."""
    return lambda folder: (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)


def model(**fields: object) -> Change:
    """Change fields of the model's config.json."""

    def change(folder: Path) -> None:
        path = folder / "model" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return change


def damage(pattern: str, keep: float = 1.0, flip: float | None = None) -> Change:
    """Cut the first file that matches to a share of its length, or flip a byte at a share of it."""

    def change(folder: Path) -> None:
        path = min(path for path in folder.glob(pattern) if path.is_file())
        content = bytearray(path.read_bytes())
        if flip is not None:
            content[int(len(content) * flip)] ^= 0xFF
        path.write_bytes(content[: int(len(content) * keep)])

    return change


def remove(name: str) -> Change:
    """Remove a file or folder."""
    return lambda folder: shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def override(field: str, value: str, *words: str) -> Mistake:
    """A wrong value on the command line of `plan`."""
    return Mistake(f"plan run.yaml {field}={value}", (field, *words))


RUN_FILE = [
    Mistake("plan run.yaml", ("trian: unknown field", "did you mean train?"), edit("\ntrain:", "\ntrian:")),
    Mistake("submit run.yaml", ("train.step: unknown field", "train.steps?"), edit("steps:", "step:")),
    Mistake("plan run.yaml", ("train.steps: 'ten'", "integer"), edit("steps: 4", "steps: ten")),
    Mistake("plan run.yaml", ("train.steps: 1.5", "integer"), edit("steps: 4", "steps: 1.5")),
    Mistake("plan run.yaml", ("train is given twice", "line"), edit("\ntrain:", "\ntrain: {}\ntrain:")),
    Mistake("plan run.yaml", ("not valid YAML", "run.yaml"), edit("name:", "\tname:")),
    Mistake("plan run.yaml", ("not valid YAML", "run.yaml, line"), edit("name: tiny", "name: [tiny")),
    Mistake("plan run.yaml", ("holds NoneType", "run.yaml"), write("run.yaml", "")),
    Mistake("plan run.yaml", ("holds list", "run.yaml"), write("run.yaml", "- 1\n")),
    Mistake("plan run.yaml", ("cannot be read", "run.yaml"), write("run.yaml", b"\xff\xfe\x00")),
    Mistake("plan run.yaml", ("schema_version: is missing",), edit("schema_version: 1\n", "")),
    Mistake("plan run.yaml", ("schema_version: 7",), edit("schema_version: 1", "schema_version: 7")),
    Mistake("plan run.yaml", ("name: '../up'",), edit("name: tiny", "name: ../up")),
    Mistake("plan absent.yaml", ("absent.yaml: no such file",)),
    Mistake("submit absent.yaml", ("absent.yaml: no such file",)),
    Mistake("submit absent", ("absent", "give RUN.yaml")),
    Mistake("plan text", ("text", "cannot be read")),
    Mistake("plan run.yaml", ("cluster.partitoin", "partition?"), edit("cluster:", "cluster: {partitoin: x}\n#")),
    Mistake("plan run.yaml cluster.profile=mine", ("mine.yaml", "profile"), write("mine.yaml", "profile: dev\n")),
]

OVERRIDES = [
    Mistake("submit run.yaml checkpoint.resume_from=nowhere", ("checkpoint.resume_from: no run 'nowhere'",)),
    override("train.precision", "fp16", "'fp16'", "'bf16' or 'fp32'"),
    override("train.optimizer.learning_rate", "1", "unknown field", "valid here"),
    override("train.optimizer.lr", "-1", "greater than 0"),
    override("train.optimizer.betas", "[0.9,2]", "[0, 1)"),
    override("train.schedule.min_lr", "9", "above optimizer.lr"),
    override("train.schedule.min_lr", "1", "optimizer.lr"),
    override("data.train.3.store", "x", "0 to 0"),
    override("data.fill_in_the_middle.rate", "1.5", "1.5", "less than or equal to 1"),
    override("data.fill_in_the_middle.spm_rate", "-1", "-1", "greater than or equal to 0"),
    Mistake(
        "plan run.yaml 'data.fill_in_the_middle.tokens.prefix=<|fim_middle|>'",
        ("data.fill_in_the_middle.tokens: prefix '<|fim_middle|>'", "must differ"),
    ),
    Mistake(
        "submit run.yaml data.fill_in_the_middle.rate=0.5",
        ("data.fill_in_the_middle.tokens.prefix: '<|fim_prefix|>' is no token of", "store.zarr/tokenizer"),
    ),
    override("data.prompt_mask", "3", "3", "bool"),
    Mistake("data build --chat text/a.py new.zarr", ("--tokenizer: not given", "give the model's own")),
    Mistake("data build --chat-template chatml text new.zarr", ("--chat-template: given without --chat",)),
    Mistake(
        "data build --chat --tokenizer store.zarr/tokenizer text new.zarr",
        ("SOURCE text: --chat, but text has no records",),
    ),
    Mistake(
        "data build --chat --tokenizer store.zarr/tokenizer values.jsonl new.zarr",
        ("--chat-template: not given, and the tokenizer has no chat template", "chatml"),
    ),
    Mistake(
        "data append --chat chats.jsonl store.zarr",
        ("STORE store.zarr: has no loss mask", "data.train"),
        write("chats.jsonl", '{"prompt": "a", "completion": "b"}'),
    ),
    Mistake("plan run.yaml 'data.stages=[{until_tokens: 320}]'", ("data.stages.0.until_tokens: 320", "has no end")),
    Mistake("plan run.yaml 'data.stages=[{},{}]'", ("data.stages.0.until_tokens: is missing", "follows")),
    Mistake(
        "plan run.yaml 'data.stages=[{until_tokens: 64},{until_tokens: 40},{}]'",
        ("data.stages.1.until_tokens: 40", "no sample"),
    ),
    Mistake("plan run.yaml 'data.stages=[{until_tokens: 4.5},{}]'", ("data.stages.0.until_tokens: 4.5", "integer")),
    Mistake("plan run.yaml 'data.stages=[{weights: {stor: 1}}]'", ("stages.0.weights: 'stor'", "(store)")),
    Mistake("plan run.yaml 'data.stages=[{weights: {store: 0}}]'", ("stages.0.weights: {'store': 0.0}", "no store")),
    Mistake("plan run.yaml 'data.stages=[{weights: {store: -1}}]'", ("data.stages.0.weights.store: -1", "equal to 0")),
    Mistake("plan run.yaml 'data.stages=[{weight: {store: 1}}]'", ("data.stages.0.weight: unknown", "weights?")),
    Mistake(
        "plan run.yaml 'data.stages=[{weights: {store: 1}}]' data.train.0.weight=2",
        ("data.train.0.weight: 2.0", "weights of its own"),
    ),
    Mistake(
        "plan run.yaml 'data.train=[{store: a},{store: b}]' 'data.stages=[{weights: {a: 1}}]'",
        ("data.train.1.store: no stage gives 'b' a share",),
    ),
    Mistake(
        "plan run.yaml 'data.train=[{store: a},{store: b, name: a}]'", ("data.train.1.name: 'a'", "another store's")
    ),
    Mistake(
        "plan run.yaml 'data.train=[{store: x/a.zarr},{store: y/a}]' 'data.stages=[{}]'",
        ("data.train.1.name: 'a'", "another store's"),
    ),
    Mistake(
        "plan run.yaml 'data.train=[{store: a},{store: b}]' 'data.stages=[{weights: {a: 1, b: 1e-9}}]'",
        ("data.stages.0.weights.b", "less than 1 in 65536"),
    ),
    override("data.train.0.name", "'a b'", "'a b'", "pattern"),
    override("cluster.profile", "loacl", "'loacl'", "use local or dev"),
    override("cluster.time_limit", "soon", "'soon'"),
    override("tracking.wandb.mode", "cloud", "'offline', 'online' or 'disabled'"),
    Mistake("plan run.yaml train.steps", ("train.steps: not an override", "section.field=value")),
    Mistake("plan run.yaml steps=3", ("steps: unknown field", "3")),
]

LAYOUTS = [
    override("parallelism.tensor", "3", "num_attention_heads 4", "[1, 2, 4]"),
    override("parallelism.pipeline", "3", "num_hidden_layers 4", "[1, 2, 4] or stage_layers=[2, 1, 1]"),
    override("parallelism.stage_layers", "[2,0]", "stage_layers.1", "0"),
    Mistake("plan run.yaml parallelism.virtual_pipeline=2", ("virtual_pipeline: 2 at pipeline 1", "use stages")),
    Mistake(
        "plan run.yaml parallelism.pipeline=2 parallelism.stage_layers=[3,2]", ("[3, 2] is 5 layers", "give [2, 2]")
    ),
    override("train.global_batch_size", "3", "micro_batch_size 2", "use 2 or 4"),
    override("data.sequence_length", "9999", "max_position_embeddings 64"),
    override("parallelism.engine", "fsdp", "'megatron' or 'deepspeed'"),
    override("parallelism.zero", "4", "parallelism.zero"),
    Mistake("plan run.yaml parallelism.zero=3", ("parallelism.zero: 3", "parallelism.engine=deepspeed")),
    Mistake("verify-layout run.yaml parallelism.offload=cpu", ("parallelism.offload: cpu", "megatron")),
    Mistake(
        "submit run.yaml parallelism.engine=deepspeed parallelism.tensor=2 parallelism.context=2"
        " cluster.ranks_per_node=4",
        ("parallelism.context: 2 beside tensor 2", "engine=megatron"),
    ),
    Mistake("submit run.yaml parallelism.tensor=2", ("parallelism", "world size 1", "multiple of 2")),
    Mistake("submit run.yaml --then export", ("--then", "need Slurm", "--wait")),
    Mistake("submit run.yaml --wait --then exports", ("--then: 'exports'", "export, serve")),
    Mistake("submit run.yaml --wait --then 'serve --prot 8000'", ("--then", "'--prot'", "serve --help")),
    Mistake("submit run.yaml --wait --then 'serve --port x'", ("--then", "--port", "'x'")),
    Mistake("sweep run.yaml train.seed=1", ("no field has several values", "trainwright submit")),
    Mistake("sweep run.yaml train.seed=1,2,", ("train.seed: '1,2,' has an empty value",)),
    Mistake("sweep run.yaml train.seed=1,two", ("train.seed", "'two'", "integer")),
    Mistake("sweep run.yaml train.seed=1,2 --at-once 0", ("--at-once: 0", "1 or more")),
    Mistake("sweep run.yaml train.seed=1,2 --at-once 2", ("--at-once: 2", "one after another", "profile with Slurm")),
    Mistake("submit run.yaml cluster.nodes=2", ("cluster.nodes: 2", "cluster.profile=dev")),
    Mistake("submit run.yaml cluster.partition=gpu", ("cluster.partition: 'gpu'", "slurm")),
    Mistake("submit run.yaml cluster.profile=dev", ("cluster.slurm_conf", "cluster dev up")),
]

MODELS = [
    Mistake("plan run.yaml", ("model", "config.json: no such file"), remove("model")),
    Mistake("plan run.yaml", ("model", "cannot be read"), write("model/config.json", "{")),
    Mistake("plan run.yaml", ("model_type: 'gpt2'", "use one of llama"), model(model_type="gpt2")),
    Mistake("plan run.yaml", ("rope_scaling: 'yarn'",), model(rope_scaling={"rope_type": "yarn"})),
    Mistake("plan run.yaml", ("num_hidden_layers: '4'", "whole number"), model(num_hidden_layers="4")),
    Mistake("submit run.yaml", ("vocab_size 8", "raise vocab_size"), model(vocab_size=8)),
]

STORES = [
    Mistake("submit run.yaml", ("store.zarr", "not a token store"), remove("store.zarr")),
    Mistake("submit run.yaml", ("text", "not a token store"), edit("store.zarr", "text")),
    Mistake(
        "submit run.yaml",
        ("data.train.1.store", "another tokenizer", "--tokenizer"),
        edit("{store: store.zarr}", "{store: store.zarr}, {store: other.zarr}"),
    ),
    Mistake(
        "submit run.yaml data.sequence_length=64", ("data.train.0.store", "too few"), edit("store.zarr", "few.zarr")
    ),
    Mistake("data verify store.zarr", ("truncated",), damage("store.zarr/c/*", keep=0.5), 3),
    Mistake("data verify store.zarr", ("crc32c",), damage("store.zarr/c/*", flip=0.1), 3),
    Mistake("data verify store.zarr", ("zarr.json",), edit('"', "'", "store.zarr/zarr.json"), 3),
    Mistake(
        "data verify store.zarr",
        ("tokenizer",),
        edit("endoftext", "endoftaxt", "store.zarr/tokenizer/tokenizer.json"),
        3,
    ),
    Mistake("data inspect absent.zarr", ("absent.zarr: not a token store",)),
    Mistake("data inspect store.zarr --advise --sequence-length 1", ("--sequence-length", "1 is below 2")),
    Mistake("data verify store.zarr --repair absent.zarr", ("absent.zarr: not a token store",)),
    Mistake("data verify absent.zarr --repair store.zarr", ("absent.zarr: no such folder",)),
    Mistake("data compare store.zarr", ("STORE: one store alone",)),
    Mistake("data compare store.zarr absent.zarr", ("absent.zarr: not a token store",)),
    Mistake("submit run.yaml data.max_unknown=0.001", ("data.max_unknown", "0.001")),
    Mistake("submit run.yaml data.quality=stopp", ("data.quality", "'stopp'")),
    Mistake("data pack absent.zarr --sequence-length 8", ("absent.zarr: not a token store",)),
    Mistake("data pack store.zarr --sequence-length 1", ("--sequence-length", "1 is below 2")),
    Mistake("submit run.yaml data.packing=best_fit", ("data.packing", "data pack", "--sequence-length")),
    Mistake("plan run.yaml data.reset_positions=true", ("data.reset_positions", "data.document_mask: true")),
    Mistake("plan run.yaml data.packing=bestfit", ("data.packing", "'bestfit'", "best_fit")),
    Mistake("data order run.yaml --explain -1", ("--explain", "-1 is below 0")),
    Mistake("data order run.yaml --explain 1 --count 0", ("--count", "0 is below 1")),
    Mistake("data order run.yaml --explain x", ("--explain", "'x'")),
    Mistake("data order absent.yaml --explain 1", ("absent.yaml",)),
    override("data.train.0.store", "s3://me:secret@bucket/store.zarr", "no user or password in a URL"),
    override("data.train.0.store", "https://host/store.zarr?sig=secret", "no ? or # in a URL"),
    override("data.train.0.store", "ftp://host/store.zarr", "use one of s3"),
    override("data.stage_to", "scratch", "absolute path"),
    Mistake("data build text s3://bucket/new.zarr", ("STORE", "s3://bucket/new.zarr is a URL", "data copy")),
    Mistake("data pack s3://bucket/new.zarr --sequence-length 8", ("STORE", "is a URL", "data copy")),
    Mistake("data verify s3://me:secret@bucket/new.zarr", ("STORE", "no user or password")),
    Mistake("data verify s3://bucket/new.zarr --repair store.zarr", ("--repair", "is a URL", "data copy")),
    Mistake("data copy store.zarr other.zarr", ("other.zarr: another store is there (generation 1)",)),
    Mistake("data copy store.zarr text", ("text: exists already, and is not a store",)),
    Mistake("data copy absent.zarr new.zarr", ("absent.zarr: not a token store",)),
    Mistake("data copy store.zarr absent/new.zarr", ("absent is not a folder",)),
    Mistake("data copy store.zarr new.zarr", ("c/0: is not the recorded one",), damage("store.zarr/c/*", flip=0.1), 3),
    Mistake("data verify text", ("text: not a token store",)),
]

BUILDS = [
    Mistake("data build absent new.zarr", ("SOURCE absent",)),
    Mistake("data build text store.zarr", ("STORE store.zarr: exists already",)),
    Mistake("data build run.yaml run.yaml/new.zarr", ("STORE run.yaml/new.zarr", "not a folder")),
    Mistake("data build text new.zarr --vocab-size 3", ("--vocab-size", "3", "at least")),
    Mistake("data build text new.zarr --vocab-size big", ("--vocab-size", "'big'")),
    Mistake("data build text new.zarr --compression lzma", ("--compression: 'lzma'", "zstd")),
    Mistake("data build text new.zarr --shard-tokens 7", ("--shard-tokens", "7")),
    Mistake("data build text new.zarr --tokenizer absent", ("--tokenizer", "absent", "no such file")),
    Mistake("data build text new.zarr --workers 0", ("--workers", "0", "at least 1")),
    Mistake("data build text new.zarr --deduplicate fuzzy", ("--deduplicate", "'fuzzy'", "exact")),
    Mistake("data build text new.zarr --near-threshold 0.5", ("--near-threshold", "--deduplicate near")),
    Mistake("data build text new.zarr --deduplicate near --near-threshold 2", ("--near-threshold", "2", "below 1")),
    Mistake("data build text new.zarr --wait", ("--wait", "without --cluster")),
    Mistake("data build text new.zarr --cluster local", ("--cluster", "scheduler is local")),
    Mistake("data build text new.zarr --cluster absent", ("profile", "'absent'")),
    Mistake("data build run.yaml new.zarr --format nanogpt", ("--tokenizer", "run.yaml holds token ids alone")),
    Mistake("data append text absent.zarr", ("absent.zarr: not a token store",)),
    Mistake("data append absent store.zarr", ("SOURCE absent",)),
    Mistake("data append text store.zarr --wait", ("--wait", "without --cluster")),
    Mistake("data append text store.zarr --cluster local", ("--cluster", "scheduler is local")),
    Mistake("data append text store.zarr --cluster absent", ("profile", "'absent'")),
    Mistake("data append text absent.zarr --cluster dev", ("absent.zarr: not a token store",)),
    Mistake("data append text store.zarr --deduplicate fuzzy", ("--deduplicate", "'fuzzy'", "exact")),
    Mistake("data append text store.zarr --near-threshold 0.5", ("--near-threshold", "--deduplicate near")),
    Mistake("data append text store.zarr --workers none", ("--workers", "'none'")),
    Mistake("data build text new.zarr --tokenizer text/a.py", ("--tokenizer", "text/a.py", "not a tokenizer")),
    Mistake("data build text new.zarr --extension .rs", ("SOURCE text: holds no file", "--extension")),
    Mistake("data build text new.zarr --format csv", ("--format: 'csv'", "jsonl", "megatron")),
    Mistake("data build text new.zarr --field body", ("--field: 'body'", "no source has fields")),
    Mistake(
        "data build a.jsonl new.zarr --vocab-size 300",
        ("SOURCE a.jsonl: line 2: no field 'text' (there are: body)", "--field"),
        write("a.jsonl", '{"text": "a"}\n{"body": "b"}\n'),
    ),
    Mistake(
        "data build a.jsonl new.zarr --vocab-size 300",
        ("SOURCE a.jsonl: line 2, column 10: not JSON", "ends in this line"),
        write("a.jsonl", '{"text": "a"}\n{"text": "b'),
    ),
    Mistake(
        "data build corpus.bin new.zarr", ("SOURCE corpus.idx: no such file", "corpus.bin"), write("corpus.bin", "")
    ),
    Mistake(
        "data build a.parquet new.zarr", ("SOURCE a.parquet: not a whole Parquet file",), write("a.parquet", "PAR1")
    ),
    Mistake("data build text new.zarr", ("several formats (1 jsonl, 3 text)", "--format"), write("text/d.jsonl", "{}")),
    Mistake("data export store.zarr run.yaml", ("FILE run.yaml: exists already",)),
    Mistake("data export store.zarr absent/a.h5", ("FILE absent/a.h5", "not a folder")),
    Mistake("data export text a.h5", ("text: not a token store",)),
    Mistake("data export store.zarr a.h5", ("crc32c",), damage("store.zarr/c/*", flip=0.1), 3),
    Mistake("data build text", ("STORE",)),
    Mistake("data bild text new.zarr", ("'bild'", "did you mean 'build'?")),
]

RUNS = [
    Mistake("status absent", ("no run 'absent'", "runs/absent")),
    Mistake("logs absent", ("no run 'absent'",)),
    Mistake("logs runs/small", ("never started", "submit it")),
    Mistake("logs started --attempt 7", ("--attempt: 7", "this run has 1")),
    Mistake("logs started --rank 9", ("--rank: 9", "0 to 0")),
    Mistake("submit started data.seed=5", ("data.seed: 5", "started with 1234", "train.steps")),
    Mistake("cancel absent", ("no run 'absent'",)),
    Mistake("sync absent", ("no run 'absent'",)),
    Mistake("export absent out", ("no run 'absent'",)),
    Mistake("export small@last out", ("RUN@STEP: 'last'", "a number")),
    Mistake("export small@6 out", ("no checkpoint of step 6", "[5]")),
    Mistake("export small out", ("no checkpoint yet",), remove("runs/small/checkpoints")),
    Mistake("export small exported", ("exported: exists already", "new folder")),
    Mistake("export small out --dtype int8", ("--dtype: 'int8'", "float32")),
    Mistake("export small out --shard-size-gb 0", ("--shard-size-gb: 0",)),
    Mistake("export small out", ("crc32c",), damage("runs/small/checkpoints/*/*.safetensors", flip=0.7), 3),
    Mistake("export small out", (".safetensors",), damage("runs/small/checkpoints/*/*.safetensors", keep=0.5), 3),
    Mistake("export small out", ("manifest.json",), damage("runs/small/checkpoints/*/manifest.json", keep=0.5), 3),
]

COMMANDS = [
    Mistake("pln run.yaml", ("'pln' is not known", "did you mean 'plan'?")),
    Mistake("", ("COMMAND",)),
    Mistake("plan", ("RUN.yaml", "--help")),
    Mistake("plan run.yaml --jsn", ("--jsn", "--help")),
    Mistake("serve", ("MODEL",)),
    Mistake("serve text", ("MODEL: text: is no exported model",)),
    Mistake("serve absent", ("no run 'absent'",)),
    Mistake("serve --stop absent", ("no endpoint 'absent'",)),
    Mistake("serve small --port 99999", ("--port", "99999")),
    Mistake("cluster dev up --nodes 0", ("nodes", "0")),
    Mistake("quickstart train.step=1", ("train.step: unknown field", "train.steps?")),
    Mistake("quickstart --text absent", ("--text", "absent")),
    Mistake("quickstart --folder run.yaml", ("run.yaml",)),
    Mistake("quickstart parallelism.tensor=3", ("parallelism.tensor: 3",)),
    Mistake("quickstart --cluster moon", ("--cluster: 'moon'", "dev")),
    Mistake("cluster dev sideways", ("'sideways'",)),
]

_IMPORT = "data features import --store store.zarr values.jsonl features.db"
_SELECT = "data features select store.zarr features.db out.npz --as-of 2026-02-01 --where"

FEATURES = [
    Mistake("data features import absent.csv new.db", ("SOURCE absent.csv: no such file",)),
    Mistake(
        "data features import values.jsonl new.db",
        (
            "SOURCE values.jsonl: line 1",
            "'document' (with --store",
        ),
    ),
    Mistake("data features import run.yaml new.db", ("SOURCE run.yaml: its name says no format", ".parquet or .csv")),
    Mistake("data features import values.jsonl absent/new.db", ("absent/new.db: absent is not a folder",)),
    Mistake("data features import values.jsonl text", ("text: is a folder",)),
    Mistake("data features import --feature 'a b' values.jsonl new.db", ("--feature: 'a b' is no name",)),
    Mistake(
        "data features import --event-time soon values.jsonl new.db", ("--event-time: 'soon' is no time", "ISO 8601")
    ),
    Mistake("data features import --store absent.zarr values.jsonl new.db", ("absent.zarr: not a token store",)),
    Mistake(
        _IMPORT,
        ("values.jsonl: line 2: quality of", "is 0.95, and another record says 0.9"),
        edit("0.9}", "0.95}", "values.jsonl"),
    ),
    Mistake(_IMPORT, ("line 2: quality is a number, and 'high' is not",), edit("0.9}", '"high"}', "values.jsonl")),
    Mistake(_IMPORT, ("line 2: event_time: '2026-13-01' is no time",), edit("-01-02", "-13-01", "values.jsonl")),
    Mistake(_IMPORT, ("line 1, column", "not JSON"), edit("}", "", "values.jsonl")),
    Mistake(_IMPORT, ("features.db", "bytes instead of"), damage("features.db", keep=0.7), 3),
    Mistake("data features import values.jsonl run.yaml", ("run.yaml: not a features file",)),
    Mistake(f"{_SELECT} 'qualty > 0.5'", ("--where: column 1, 'qualty'", "did you mean quality?")),
    Mistake(f"{_SELECT} 'language > 0.5'", ("--where", "text is compared with a number")),
    Mistake(f"{_SELECT} 'quality >'", ("--where", "invalid syntax in 'quality >'")),
    Mistake(f"{_SELECT} 'exit(1)'", ("--where", "'exit(1)': not a function")),
    Mistake(f"{_SELECT} 'quality > 5'", ("--where: takes none of 3 documents",)),
    Mistake(f"{_SELECT} 'quality > 0' --weights -quality", ("--weights", "expected one argument")),
    Mistake(f"{_SELECT} 'quality > 0' --weights 0-quality", ("--weights: document 0 gets -0.9",)),
    Mistake(f"{_SELECT} 'quality > 0' --into other.zarr", ("other.zarr: exists already",)),
    Mistake(f"{_SELECT} 'quality > 0' --as-of tomorrow", ("--as-of: 'tomorrow' is no time",)),
    Mistake(f"{_SELECT} 'quality > 0'", ("out.npz: exists already",), write("out.npz", "")),
    Mistake(f"{_SELECT} 'quality > 0'", ("no such features file",), remove("features.db")),
    Mistake(f"{_SELECT} 'quality > 0'", ("not a token store",), remove("store.zarr")),
    Mistake(
        f"{_SELECT} 'language is not None'",
        ("features.db", "crc32"),
        edit_bytes(b"english", b"spanish", "features.db"),
        3,
    ),
    Mistake("data features lookup features.db abc", ("DOCUMENT: 'abc' is no document id", "32 hexadecimal")),
    Mistake(f"data features lookup features.db {'0' * 32} --as-of 12", ("--as-of: '12' is no time",)),
    Mistake(f"data features lookup run.yaml {'0' * 32}", ("run.yaml: not a features file",)),
    Mistake("data features verify features.db", ("features.db",), damage("features.db", flip=0.999), 3),
    Mistake("data features show absent.db", ("absent.db: no such features file",)),
    Mistake("data features ids text out.csv", ("text: not a token store",)),
    Mistake("data features ids store.zarr run.yaml", ("FILE run.yaml: exists already",)),
    Mistake("data features export features.db text", ("FOLDER text: exists already",)),
    Mistake("data features lokup", ("'lokup'", "did you mean 'lookup'?")),
]

MISTAKES = [*RUN_FILE, *OVERRIDES, *LAYOUTS, *MODELS, *STORES, *BUILDS, *FEATURES, *RUNS, *COMMANDS]
