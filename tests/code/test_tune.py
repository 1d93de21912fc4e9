from pathlib import Path

import optuna
import pytest

from pipeline import params, paths, tune
from pipeline.params import Choices, Range

SETTINGS = params.load(Path(__file__).parents[1] / "params.yaml")
SPACE: dict[str, Range | Choices] = {
    "dropout": Range(low=0.1, high=0.5),
    "batch_size": Choices(choices=(16, 32)),
}


def settings(**train: float) -> tuple[params.TrainParams, params.TuneParams]:
    return (
        params.with_values(SETTINGS.train, train),
        SETTINGS.tune.model_copy(update={"space": SPACE}),
    )


def test_the_first_trial_is_what_train_says() -> None:
    study = optuna.create_study()
    tune.enqueue_defaults(study, *settings(dropout=0.2, batch_size=32))
    trial = study.ask()
    assert {k: tune.suggest(trial, k, where) for k, where in SPACE.items()} == {
        "dropout": 0.2,
        "batch_size": 32,
    }


def test_a_default_outside_the_space_is_no_trial_and_no_error() -> None:
    study = optuna.create_study()
    tune.enqueue_defaults(study, *settings(dropout=0.0))
    assert not study.get_trials()


@pytest.mark.parametrize(
    ("name", "where", "kind"),
    [
        ("batch_size", Range(low=8, high=64, log=True), int),
        ("learning_rate", Range(low=0.001, high=0.1, log=True), float),
        ("schedule", Choices(choices=("constant", "cosine")), str),
    ],
)
def test_a_suggestion_is_of_the_keys_own_type(
    name: str, where: Range | Choices, kind: type
) -> None:
    value = tune.suggest(optuna.create_study().ask(), name, where)
    assert type(value) is kind
    params.with_values(SETTINGS.train, {name: value})


def test_what_the_search_found_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("run"))
    for folder in (paths.BEST_PARAMS.parent, paths.TRIALS.parent):
        folder.mkdir()
    found = tune.Best("abc", 3, 0.5, "run", {"dropout": 0.2})
    tune.write(found, tune.table([]))
    assert tune.read() == found


def test_the_table_keeps_the_best_value_so_far() -> None:
    study = optuna.create_study()
    for value in (0.9, 0.5, 0.7):
        trial = study.ask()
        trial.suggest_float("dropout", 0, 1)
        trial.report(value, 1)
        study.tell(trial, value)
    assert tune.table(tune.finished(study))["best_so_far"].tolist() == [0.9, 0.5, 0.5]
