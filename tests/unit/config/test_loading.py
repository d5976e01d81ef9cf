"""From a run file, a profile and overrides to one tree, and every way that fails."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from trainwright.config.errors import UserError
from trainwright.config.loading import dump_run, load_run

ROOT = Path(__file__).parents[3]


def test_the_quickstarts_file_loads() -> None:
    run = load_run(ROOT / "examples" / "quickstart.yaml")
    assert run.parallelism.tensor == 2
    assert run.train.optimizer.lr == 3e-3
    assert run.train.optimizer.betas == (0.9, 0.95)
    assert run.cluster.world_size == 2
    assert run.cluster.scheduler == "local"


def test_defaults_fill_what_is_not_given(run_file: Path) -> None:
    run = load_run(run_file)
    assert (run.parallelism.tensor, run.checkpoint.keep, run.tracking.wandb.mode) == (1, 2, "offline")


def test_relative_paths_are_taken_from_the_run_files_folder(run_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run_file.parent.parent)
    run = load_run(Path(run_file.parent.name) / "run.yaml")
    assert run.model == str(run_file.parent / "model" / "config.json")
    assert run.data.train[0].store == str(run_file.parent / "store.zarr")
    assert run.runs == str(run_file.parent / "runs")


def test_what_is_dumped_loads_to_the_same_tree(run_file: Path, tmp_path: Path) -> None:
    run = load_run(run_file, ["train.optimizer.lr=3e-7", "cluster.time_limit=12:00:00", "data.window=5"])
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    (copy / "run.yaml").write_text(dump_run(run))
    assert load_run(copy / "run.yaml") == run


def test_the_tree_is_frozen(run_file: Path) -> None:
    with pytest.raises(ValidationError):
        load_run(run_file).train.steps = 5


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("train.steps=9", lambda run: run.train.steps == 9),
        ("train.optimizer.lr=1e-4", lambda run: run.train.optimizer.lr == 1e-4),
        ("train.optimizer.betas=[0.5, 0.6]", lambda run: run.train.optimizer.betas == (0.5, 0.6)),
        ("data.train.0.weight=2.5", lambda run: run.data.train[0].weight == 2.5),
        ("cluster.time_limit=12:00:00", lambda run: run.cluster.time_limit == "12:00:00"),
        ("cluster.time_limit=90", lambda run: run.cluster.time_limit == "90"),
        ("data.document_mask=true", lambda run: run.data.document_mask is True),
        ("data.window=", lambda run: run.data.window is None),
        ("tracking.wandb={mode: disabled}", lambda run: run.tracking.wandb.mode == "disabled"),
        ("name=a.b-c", lambda run: run.name == "a.b-c"),
    ],
)
def test_overrides_reach_their_field(run_file: Path, override: str, read: object) -> None:
    assert callable(read)
    assert read(load_run(run_file, [override]))


def test_the_last_override_wins(run_file: Path) -> None:
    assert load_run(run_file, ["train.steps=5", "train.steps=6"]).train.steps == 6


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.step=9", "train.step: unknown field, value 9; did you mean train.steps?"),
        ("trian.steps=9", "trian: unknown field"),
        ("data.train.0.wieght=1", "did you mean data.train.0.weight?"),
        ("train.optimizer.foo=1", "valid here: name, lr, betas"),
        ("train.steps=1.5", "train.steps: 1.5"),
        ("train.steps=ten", "train.steps: 'ten'"),
        ("train.steps='9'", "train.steps: '9'"),
        ("train.steps=true", "train.steps: True"),
        ("train.steps=-1", "greater than or equal to 0"),
        ("train.optimizer.lr=.nan", "train.optimizer.lr"),
        ("train.optimizer.betas=[0.9]", "train.optimizer.betas"),
        ("train.optimizer.betas=[0.9, 1.5]", "betas: [0.9, 1.5] must lie in [0, 1)"),
        ("train.schedule.min_lr=1", "min_lr: 1.0 is above optimizer.lr"),
        ("train.schedule.decay_steps=2", "only wsd"),
        ("train.precision=fp16", "'bf16' or 'fp32'"),
        ("name=../up", "name: '../up'"),
        ("schema_version=2", "schema_version: 2"),
        ("data.train=[]", "data.train: []"),
        ("data.train.1.store=x", "'1' is not a place in a list of 1"),
        ("data.train=[{store: a}, {store: a}]", "named twice"),
        ("train.steps.deep=1", "train.steps is a value (4)"),
        ("train=5", "train: 5"),
        ("train.steps", "not an override"),
        ("=5", "not an override"),
        ("train.steps=[", "train.steps, line 1: not valid YAML"),
        ("cluster.time_limit=tomorrow", "cluster.time_limit: 'tomorrow'"),
        ("cluster.partition=a b", "cluster.partition: 'a b'"),
        ("cluster.environment=['A;rm']", "'A;rm' is not a plain name"),
        ("cluster.profile=nowhere", "no profile 'nowhere'"),
        ("cluster.profile=../x", "is not a name"),
        ("cluster.profile=5", "cluster.profile: 5"),
    ],
)
def test_a_wrong_override_is_one_line_naming_field_and_value(run_file: Path, override: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_run(run_file, [override])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_section_is_named(run_file: Path) -> None:
    run_file.write_text("schema_version: 1\nname: x\nmodel: m\n")
    with pytest.raises(UserError, match=r"run\.yaml: data: is missing; add it \(and 1 more\)"):
        load_run(run_file)


class TestProfiles:
    """The run file wins over a profile file, which wins over a built-in one."""

    def test_a_profile_beside_the_run_file_is_used(self, run_file: Path) -> None:
        profile = {"scheduler": "slurm", "partition": "gpu", "nodes": 2, "gpus_per_node": 8}
        (run_file.parent / "big.yaml").write_text(yaml.safe_dump(profile))
        run = load_run(run_file, ["cluster.profile=big", "cluster.nodes=4"])
        assert (run.cluster.scheduler, run.cluster.partition, run.cluster.nodes) == ("slurm", "gpu", 4)

    def test_the_users_config_folder_is_looked_in(self, run_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        home = run_file.parent / "home"
        (home / "trainwright" / "profiles").mkdir(parents=True)
        (home / "trainwright" / "profiles" / "dev.yaml").write_text("partition: mine\n")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
        assert load_run(run_file, ["cluster.profile=dev"]).cluster.partition == "mine"

    def test_a_wrong_field_of_a_profile_is_refused(self, run_file: Path) -> None:
        (run_file.parent / "big.yaml").write_text("partitoin: gpu\n")
        with pytest.raises(UserError, match=r"did you mean cluster\.partition\?"):
            load_run(run_file, ["cluster.profile=big"])

    def test_a_profile_names_no_profile(self, run_file: Path) -> None:
        (run_file.parent / "big.yaml").write_text("profile: dev\n")
        with pytest.raises(UserError, match="cannot name a profile"):
            load_run(run_file, ["cluster.profile=big"])
