"""Words with several values become points: every combination, each a set of overrides and a name."""

import pytest

from trainwright.config.errors import UserError
from trainwright.config.grid import grid, name_points
from trainwright.config.run import RunConfig


def test_every_combination_the_last_field_fastest() -> None:
    points = grid(["train.optimizer.lr=1e-3,3e-4", "train.steps=10", "train.seed=1,2"])
    assert [point.overrides for point in points] == [
        ("train.optimizer.lr=1e-3", "train.steps=10", "train.seed=1"),
        ("train.optimizer.lr=1e-3", "train.steps=10", "train.seed=2"),
        ("train.optimizer.lr=3e-4", "train.steps=10", "train.seed=1"),
        ("train.optimizer.lr=3e-4", "train.steps=10", "train.seed=2"),
    ]
    assert points[1].values == {"train.optimizer.lr": "1e-3", "train.seed": "2"}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[0.9,0.95],[0.9,0.99]", ["[0.9,0.95]", "[0.9,0.99]"]),
        ("[{store: a, weight: 1},{store: b}], [{store: c}]", ["[{store: a, weight: 1},{store: b}]", "[{store: c}]"]),
        ('"a,b",c', ['"a,b"', "c"]),
        ("gpu[01-03,7],gpu9", ["gpu[01-03,7]", "gpu9"]),
        ("it's,they're", ["it's", "they're"]),
        ("['a,]',b],[c]", ["['a,]',b]", "[c]"]),
    ],
)
def test_commas_inside_a_value_do_not_part_it(text: str, values: list[str]) -> None:
    assert [point.values["field"] for point in grid([f"field={text}"])] == values


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train.seed"], "train.seed: not a field with values"),
        (["train.seed=1,,2"], "train.seed: '1,,2' has an empty value"),
        (["train.seed=1,2,"], "'1,2,' has an empty value; take a comma away"),
        (["train.seed=1,2", "train.seed=3"], "train.seed: is given twice; give all its values in one word"),
        (["train.seed=1,2,1"], "train.seed: 1 is given twice; give each value once"),
        (["train.seed=1"], "no field has several values; give some, or use `trainwright submit`"),
        ([], "no field has several values"),
        (["train.optimizer.betas=[0.9,0.95"], r"does not close its \["),
        (["train.optimizer.betas=0.9],[1"], r"has a \] that closes nothing"),
        (["name='a,b"], "does not close its '"),
    ],
)
def test_words_that_are_no_grid(words: list[str], line: str) -> None:
    with pytest.raises(UserError, match=line):
        grid(words)


def test_names_say_the_values() -> None:
    points = grid(
        ["train.optimizer.lr=1e-3,3e-4", "train.optimizer.betas=[0.9, 0.95]", "parallelism.sequence=true,false"]
    )
    assert name_points(["base"] * 4, points) == [
        "base-lr1e-3-sequencetrue",
        "base-lr1e-3-sequencefalse",
        "base-lr3e-4-sequencetrue",
        "base-lr3e-4-sequencefalse",
    ]
    assert name_points(["a", "b"], grid(["name=a,b"])) == ["a", "b"]


@pytest.mark.parametrize("words", [["model=/a/b,/a_b"], [f"model={'x' * 70},{'y' * 70}"]])
def test_names_that_would_be_the_same_or_too_long_are_numbered(words: list[str]) -> None:
    names = name_points(["n" * 64] * 2, grid(words))
    assert names == ["n" * 62 + "-1", "n" * 62 + "-2"]
    for name in names:
        RunConfig.__pydantic_validator__.validate_assignment(RunConfig.model_construct(), "name", name)
