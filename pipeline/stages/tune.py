"""Stage ``tune``: search the hyper-parameters on the validation fold."""

import json
from typing import TYPE_CHECKING

import mlflow
from optuna.trial import TrialState

from pipeline import params, paths
from pipeline.data import split
from pipeline.data.feature_store import read as read_features
from pipeline.evaluation import search_plots
from pipeline.tracking import store
from pipeline.training.objective import BEST

if TYPE_CHECKING:
    pass
from pipeline.training import search


def main() -> str:
    """Run the trials that are missing and write the best one's parameters.

    Returns
    -------
    str
        The stage's closing line.
    """
    settings = params.load()
    for file in (paths.BEST_PARAMS, paths.TRIALS):
        file.parent.mkdir(parents=True, exist_ok=True)
    if not settings.tune.trials:
        search.write(search.Best(), search.table([]))
        return "no search, for tune.trials is 0; training takes `train` as it is"
    card = json.loads(paths.DATASET.read_text(encoding="utf-8"))
    folds = split.by_fold(read_features().index, settings.split.test_fold)
    study = search.open_study(
        search.study_name(settings.tune, settings.train, settings.split.test_fold), settings.tune
    )
    if not study.get_trials(deepcopy=False):
        about = {"dataset": card["name"], "test_fold": folds.test_fold}
        search.enqueue_defaults(study, settings.train, settings.tune)
        if settings.tune.warm_start:
            search.enqueue_last(study, about, settings.tune)
        for key, value in about.items():
            study.set_user_attr(key, value)
    search.close_dead_trials(study)
    known = len(search.finished(study))

    client = store.connect()
    experiment_id = store.experiment(client, card["name"])
    store.close_dead_runs(client, experiment_id)
    parent = search.study_run(client, experiment_id, study.study_name)
    if parent:
        search.close_ended_runs(client, experiment_id, parent, study)
    tags = {
        store.STAGE: "tune",
        search.STUDY: study.study_name,
        "dataset.name": card["name"],
        "split.test_fold": str(folds.test_fold),
        "split.validation_fold": str(folds.validation_fold),
    }
    with store.run(experiment_id, f"search on {card['name']}", tags, resume=parent) as run_id:
        where = search.Where(settings.split.test_fold, card["labels"], experiment_id, run_id)
        search.search(study, settings.train, settings.tune, where)
        trials = search.finished(study)[: settings.tune.trials]
        best = search.choose(trials, settings.tune)
        mlflow.log_metrics({"best_" + BEST: search.outcome(best)[0], "best_trial": best.number})
        found = search.table(trials)
        for name, picture in search_plots.pictures(found).items():
            mlflow.log_figure(picture, f"{name}.png")
    search.write(
        search.Best(study.study_name, best.number, search.outcome(best)[0], run_id, best.params),
        found,
    )
    run = max(len(trials) - known, 0)
    pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    short = len(trials) < settings.tune.trials
    return (
        f"{run} trials run, {len(trials) - run} known before, {pruned} pruned"
        + (
            f", {len(failed)} failed ({failed[0].user_attrs[search.REASON].rstrip('.')})"
            if failed
            else ""
        )
        + (f", {settings.tune.trials - len(trials)} not begun for tune.timeout" if short else "")
        + f"; best is trial {best.number} with validation log loss {search.outcome(best)[0]:.3f}: "
        + ", ".join(f"{key} {search.short(value)}" for key, value in best.params.items())
    )
