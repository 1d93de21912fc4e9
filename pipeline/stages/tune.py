"""Search hyper-parameters on the validation fold.

    python -m pipeline tune

This runs the trials that the search still lacks, so a search that was stopped continues. The
``tune`` section of ``params.yaml`` says what is searched. The best trial's parameters are written
to ``models/best_params.json``, for the train stage, and all trials to ``reports/trials.csv``.
"""

import mlflow

from pipeline import params, paths, tables
from pipeline.data import split
from pipeline.data.feature_store import read as read_features
from pipeline.evaluation import search_plots
from pipeline.tracking import store
from pipeline.training import search, trials
from pipeline.training import study as studies
from pipeline.training.objective import BEST
from pipeline.training.trial import Context


def main() -> str:
    """Run the missing trials and write the best one's parameters; return the closing line."""
    settings = params.load()
    tune = settings.tune
    if not tune.trials:
        trials.write(trials.Best(), trials.table([]))
        return "no search, because tune.trials is 0; the train stage uses `train` as it is"
    card = tables.read_json(paths.DATASET)
    folds = split.by_fold(read_features().index, settings.split.test_fold)
    study = studies.start(settings.train, tune, card["name"], folds.test_fold)
    finished_before = len(trials.finished(study))

    client = store.connect()
    experiment_id = store.experiment(client, card["name"])
    store.close_dead_runs(client, experiment_id)
    parent = studies.resumed_run(client, experiment_id, study)
    tags = {
        store.STAGE: "tune",
        studies.STUDY: study.study_name,
        "dataset.name": card["name"],
        "split.test_fold": str(folds.test_fold),
        "split.validation_fold": str(folds.validation_fold),
    }
    with store.run(experiment_id, f"search on {card['name']}", tags, resume=parent) as run_id:
        context = Context(folds.test_fold, card["labels"], experiment_id, run_id)
        search.run(study, settings.train, tune, context)
        ended = trials.finished(study)[: tune.trials]
        best = trials.choose(ended, tune)
        value = trials.outcome(best)[0]
        mlflow.log_metrics({f"best_{BEST}": value, "best_trial": best.number})
        table = trials.table(ended)
        for name, picture in search_plots.pictures(table).items():
            mlflow.log_figure(picture, f"{name}.png")
    result = trials.Best(study.study_name, best.number, value, run_id, best.params)
    trials.write(result, table)
    return trials.summary(ended, finished_before, result, tune)
