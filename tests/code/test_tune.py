from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from pipeline import drawing, params, paths
from pipeline.errors import UserError
from pipeline.evaluation import search_plots
from pipeline.params import Choices, Range
from pipeline.tracking import processes, provenance, store
from pipeline.training import search
from pipeline.training import study as studies
from pipeline.training.objective import BEST
from pipeline.training.trial import PARAMETERS, RUN, VALUES, OnEpoch, attempt, suggest
from pipeline.training.trials import Best, choose, finish, finished, read_best, table, write

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


def test_the_first_trial_has_the_parameters_of_train() -> None:
    study = optuna.create_study()
    studies.enqueue_defaults(study, *settings(dropout=0.2, batch_size=32))
    trial = study.ask()
    assert {k: suggest(trial, k, where) for k, where in SPACE.items()} == {
        "dropout": 0.2,
        "batch_size": 32,
    }


def test_defaults_outside_the_space_are_not_tried() -> None:
    study = optuna.create_study()
    studies.enqueue_defaults(study, *settings(dropout=0.0))
    assert not study.get_trials()


@pytest.mark.parametrize(
    ("name", "where", "kind"),
    [
        ("batch_size", Range(low=8, high=64, log=True), int),
        ("learning_rate", Range(low=0.001, high=0.1, log=True), float),
        ("schedule", Choices(choices=("constant", "cosine")), str),
        ("balance", Choices(choices=(False, True)), bool),
    ],
)
def test_a_suggestion_has_the_type_of_its_key(
    name: str, where: Range | Choices, kind: type
) -> None:
    value = suggest(optuna.create_study().ask(), name, where)
    assert type(value) is kind
    params.with_values(SETTINGS.train, {name: value})


def ended(study: optuna.Study, *values: float | None) -> None:
    """Finish trials with these values; None means pruned."""
    for value in values:
        trial = study.ask()
        trial.report(1.0 if value is None else value, 1)
        finish(study, trial.number, None if value is None else [value])


def run_trial(study: optuna.Study, *losses: float, **changes: Any) -> None:
    """Run another trial whose epochs have these log losses; without any, it fails."""

    def train(on_epoch: OnEpoch) -> Any:
        if not losses:
            raise UserError("the network is too small.")
        for epoch, loss in enumerate(losses, start=1):
            on_epoch(epoch, {BEST: loss})
        return SimpleNamespace(
            best={BEST: min(losses)}, model=SimpleNamespace(count_params=lambda: 7)
        )

    tune = SETTINGS.tune.model_copy(update={"epochs": max(1, len(losses)), **changes})
    trial = study.ask()
    finish(study, trial.number, attempt(trial, train, tune))


@pytest.mark.parametrize(("epochs", "ran", "state"), [(2, 2, "COMPLETE"), (3, 2, "PRUNED")])
def test_a_trial_is_pruned_to_save_epochs_but_not_when_it_has_run_them_all(
    address_of_studies: str, epochs: int, ran: int, state: str
) -> None:
    study = studies.open_study("pruned", SETTINGS.tune)
    for loss in (0.5, 0.5, 0.5, 0.9):  # the pruner needs three trials for a median
        run_trial(study, *[loss] * epochs)
    assert study.trials[3].state.name == state
    assert table(finished(study))["epochs"].tolist() == [epochs, epochs, epochs, ran]


@pytest.mark.parametrize("within", [None, 0.05])
def test_the_table_has_the_epochs_of_a_trial_with_one_objective_and_with_two(
    address_of_studies: str, within: float | None
) -> None:
    changes = {"parameters_within": within}
    study = studies.open_study("epochs", SETTINGS.tune.model_copy(update=changes))
    run_trial(study, 0.5, 0.3, 0.4, **changes)
    found = table(finished(study))
    assert found["epochs"].tolist() == [3]
    assert found[BEST].tolist() == [0.3]


def test_a_failed_trial_counts_and_is_not_run_again(
    address_of_studies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "is_dead", lambda _: True)
    study = studies.open_study("failed", SETTINGS.tune)
    run_trial(study)
    with pytest.raises(UserError, match=r"All 1 trials of the search failed\. .*: the network is"):
        choose(finished(study), SETTINGS.tune)
    run_trial(study, 0.5)
    studies.close_dead_trials(study, SETTINGS.tune)
    trials = finished(study)
    assert len(study.trials) == len(trials) == 2
    assert choose(trials, SETTINGS.tune).number == 1
    found = table(trials)
    assert found["state"].tolist() == ["failed", "complete"]
    assert found[BEST].isna().tolist() == [True, False]
    again = table([*trials, trials[0]])
    assert again["best_so_far"].tolist()[1:] == [0.5, 0.5]
    assert ">failed<" in drawing.svg(search_plots.pictures(found)["search"]).replace(" ", "")


def test_the_table_has_the_result_of_a_complete_trial_and_the_lowest_loss_of_a_pruned_one() -> None:
    study = optuna.create_study()
    for outcome in ([0.45], None):
        trial = study.ask()
        for epoch, loss in enumerate((0.5, 0.3, 0.4)):
            trial.report(loss, epoch)
        finish(study, trial.number, outcome)
    assert table(finished(study))[BEST].tolist() == [0.45, 0.3]


def test_a_study_is_resumed_only_while_its_trials_would_be_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(provenance, "sha256", lambda *_: "same")
    narrow: dict[str, Range | Choices] = {**SPACE, "augment.speed": Range(low=0.1, high=0.2)}

    def name(space: dict[str, Range | Choices] = SPACE, **train: float) -> str:
        searched = SETTINGS.tune.model_copy(update={"space": space})
        return studies.study_name(searched, params.with_values(SETTINGS.train, train), test_fold=1)

    assert name(label_smoothing=0.2) != name()
    assert name(dropout=0.2) != name(dropout=0.3)  # both inside: the first trial is another
    assert name(dropout=0.6) == name(dropout=0.7)  # both outside: no trial takes it
    assert name(narrow, **{"augment.speed": 0.5}) == name(narrow, **{"augment.speed": 0.6})
    assert name(epochs=3, ensemble=2) == name(epochs=4)


def test_only_the_first_trials_count_of_a_study_that_has_more_than_asked_for() -> None:
    study = optuna.create_study()
    early, late = study.ask(), study.ask()
    finish(study, late.number, [0.1])
    finish(study, early.number, [0.5])
    ended(study, 0.3, None, 0.05)
    numbers = [trial.number for trial in finished(study)]
    assert numbers == [0, 1, 2, 3, 4]
    assert choose(finished(study)[:1], SETTINGS.tune).number == 0
    assert choose(finished(study)[:4], SETTINGS.tune).number == 1


def test_a_pruned_trial_is_never_the_best() -> None:
    study = optuna.create_study()
    trial = study.ask()
    trial.report(0.01, 1)
    finish(study, trial.number, None)
    ended(study, 0.4)
    assert choose(finished(study), SETTINGS.tune).number == 1


def test_the_smallest_of_the_nearly_best_networks_is_chosen_and_the_pareto_front_is_marked() -> (
    None
):
    study = optuna.create_study(directions=["minimize", "minimize"])
    for values in ([0.50, 900.0], [0.52, 400.0], [0.60, 100.0], [0.53, 500.0]):
        study.tell(study.ask(), values)
    trials = finished(study)
    within = SETTINGS.tune.model_copy(update={"parameters_within": 0.05})
    assert choose(trials, within).number == 1
    assert choose(trials, within.model_copy(update={"parameters_within": 0.0})).number == 0
    found = table(trials)
    assert found["pareto"].tolist() == [True, True, True, False]
    assert found["parameters"].tolist() == [900, 400, 100, 500]


@pytest.mark.parametrize("sizes", [(900, 900), (900, 400)])
def test_the_pareto_front_is_drawn_if_networks_of_several_sizes_were_tried(
    sizes: tuple[int, int],
) -> None:
    study = optuna.create_study()
    for value, parameters in zip((0.5, 0.6), sizes, strict=True):
        trial = study.ask()
        trial.report(value, 1)
        trial.set_user_attr(PARAMETERS, parameters)
        finish(study, trial.number, [value])
    ended(study, None)  # a pruned one has no size
    found = table(finished(study))
    several = sizes[0] != sizes[1]
    assert ("parameters" in found) == several
    assert ("pareto" in search_plots.pictures(found)) == several
    if several:
        assert found["pareto"].tolist() == [True, True, False]
        assert "trial 1" in drawing.svg(search_plots.pictures(found)["pareto"])


@pytest.fixture
def address_of_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    address = f"sqlite:///{tmp_path}/optuna.db"
    monkeypatch.setenv("OPTUNA_STORAGE", address)
    return address


def test_a_warm_start_tries_the_best_of_the_last_search_on_the_same_split(
    address_of_studies: str,
) -> None:
    def study(name: str, test_fold: int, dropout: float) -> optuna.Study:
        made = studies.open_study(name, SETTINGS.tune)
        made.set_user_attr("dataset", "esc10")
        made.set_user_attr("test_fold", test_fold)
        for value in (dropout, 0.45):
            made.enqueue_trial({"dropout": value, "batch_size": 16, "epochs": 3})
            trial = made.ask()
            trial.suggest_float("dropout", 0.0, 0.6)
            made.tell(trial, value)
        return made

    study("old", 1, 0.15)
    study("last", 1, 0.25)
    study("other", 2, 0.35)
    new = studies.open_study("new", SETTINGS.tune)
    _, with_space = settings()
    studies.enqueue_last(new, {"dataset": "esc10", "test_fold": 1}, with_space)
    (trial,) = new.get_trials()
    assert trial.system_attrs["fixed_params"] == {"dropout": 0.25}


def test_trials_that_finished_before_a_search_was_killed_count(
    address_of_studies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "is_dead", lambda process: process == "dead")
    study = studies.open_study("killed", SETTINGS.tune)
    for outcome in ([0.3], None, [], ...):
        trial = study.ask()
        trial.suggest_float("dropout", 0.1, 0.5)
        trial.set_user_attr(processes.PROCESS, "dead")
        if outcome is not ...:
            trial.report(0.3, 1)
            trial.set_user_attr(VALUES, outcome)
    only_dropout = {"dropout": Range(low=0.1, high=0.5)}
    studies.close_dead_trials(study, SETTINGS.tune.model_copy(update={"space": only_dropout}))
    states = [trial.state.name for trial in study.get_trials()]
    assert states == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "WAITING"]
    assert study.trials[4].system_attrs["fixed_params"] == study.trials[3].params
    assert [trial.number for trial in finished(study)] == [0, 1, 2]


def test_a_search_killed_while_it_suggests_values_suggests_the_same_ones_again(
    address_of_studies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "is_dead", lambda process: process == "dead")
    train, tune = settings(dropout=0.2, batch_size=32)

    def suggested(study: optuna.Study, keys: list[str]) -> dict[str, Any]:
        study.sampler = search.sampler(tune, len(finished(study)))
        trial = study.ask()
        trial.set_user_attr(processes.PROCESS, "dead")
        for key in keys:
            suggest(trial, key, tune.space[key])
        return trial.params

    def run(name: str, kill: bool) -> list[dict[str, Any]]:
        study = studies.open_study(name, tune)
        studies.enqueue_defaults(study, train, tune)
        found = []
        for value in (0.3, 0.2):
            if kill:
                suggested(study, ["dropout"])
                studies.close_dead_trials(study, tune)
            found.append(suggested(study, list(tune.space)))
            study.trials[-1].set_user_attr(VALUES, [value])
            study.tell(study.trials[-1].number, value)
        return found

    whole = run("whole", kill=False)
    assert whole[0] == {"dropout": 0.2, "batch_size": 32}
    assert run("killed", kill=True) == whole


def test_a_search_killed_before_its_study_was_ready_still_tries_the_defaults_first(
    address_of_studies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "study_name", lambda *_: "name")
    train, tune = settings(dropout=0.2, batch_size=32)
    studies.enqueue_defaults(studies.open_study("name", tune), train, tune)
    study = studies.start(train, tune, "foley", 1)
    assert study.user_attrs == {"dataset": "foley", "test_fold": 1}
    (trial,) = study.get_trials()
    assert trial.system_attrs["fixed_params"] == {"dropout": 0.2, "batch_size": 32}


def test_the_run_of_a_finished_trial_is_closed_if_the_store_had_failed(
    address_of_studies: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    client = store.connect()
    parent = client.create_run("0").info.run_id
    nested = [client.create_run("0", tags={"mlflow.parentRunId": parent}) for _ in range(2)]
    study = studies.open_study("gone", SETTINGS.tune)
    ended, killed = (study.ask() for _ in nested)
    for trial, run in zip((ended, killed), nested, strict=True):
        trial.set_user_attr(RUN, run.info.run_id)
        client.set_terminated(run.info.run_id, "KILLED")
    finish(study, ended.number, [0.3])
    studies.close_ended_runs(client, "0", parent, study)
    assert [client.get_run(run.info.run_id).info.status for run in nested] == ["FINISHED", "KILLED"]


def test_the_best_trial_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("run"))
    for folder in (paths.BEST_PARAMS.parent, paths.TRIALS.parent):
        folder.mkdir()
    found = Best("abc", 3, 0.5, "run", {"dropout": 0.2})
    write(found, table([]))
    assert read_best() == found


def test_the_table_keeps_the_best_value_so_far() -> None:
    study = optuna.create_study()
    for value in (0.9, 0.5, 0.7):
        trial = study.ask()
        trial.suggest_float("dropout", 0, 1)
        trial.report(value, 1)
        study.tell(trial, value)
    assert table(finished(study))["best_so_far"].tolist() == [0.9, 0.5, 0.5]
