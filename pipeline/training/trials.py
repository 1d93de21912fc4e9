"""Choose the best trial of a study, and tabulate the finished ones."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from pipeline import paths, tables
from pipeline.errors import UserError
from pipeline.params import TuneParams
from pipeline.training.objective import BEST
from pipeline.training.trial import EPOCHS, PARAMETERS, REASON, VALUES

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True)
class Best:
    """The best trial, as the train stage reads it; without values if there was no search."""

    study: str | None = None
    trial: int | None = None
    value: float | None = None
    run_id: str | None = None
    params: dict[str, Any] = field(default_factory=dict)


def read_best() -> Best:
    """Read the best trial that the tune stage wrote."""
    return Best(**tables.read_json(paths.BEST_PARAMS))


def write(best: Best, found: pd.DataFrame) -> None:
    """Write the outputs of the tune stage: the best trial and the table of trials."""
    tables.write_json(paths.BEST_PARAMS, asdict(best))
    tables.write(paths.TRIALS, found)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """List the trials that a resumed search does not run again, in the order of their start.

    These are complete, were pruned, or failed because their network cannot be trained. Trials that
    were killed are not among them.
    """
    trials = study.get_trials(deepcopy=False, states=(*FINISHED, TrialState.FAIL))
    ended = [t for t in trials if t.state in FINISHED or t.user_attrs.get(VALUES) == []]
    return sorted(ended, key=lambda trial: trial.number)


def finish(study: optuna.Study, number: int, values: list[float] | None) -> None:
    """Record in `study` how a trial ended: with values, pruned (None) or failed (empty list)."""
    if values:
        study.tell(number, values)
    else:
        study.tell(number, state=TrialState.PRUNED if values is None else TrialState.FAIL)


def choose(trials: list[FrozenTrial], tune: TuneParams) -> FrozenTrial:
    """Choose the trial with the lowest validation log loss.

    With ``tune.parameters_within``, choose the smallest network among the trials whose log loss
    exceeds the lowest one by at most that share.

    Raises
    ------
    UserError
        When every trial failed.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not complete:
        raise UserError(
            f"All {len(trials)} trials of the search failed. The first one:"
            f" {trials[0].user_attrs[REASON]}"
        )
    best = min(complete, key=lambda trial: outcome(trial)[0])
    if tune.parameters_within is None:
        return best
    limit = outcome(best)[0] * (1 + tune.parameters_within)
    enough = [trial for trial in complete if outcome(trial)[0] <= limit]
    return min(enough, key=lambda trial: (outcome(trial)[1], outcome(trial)[0]))


def outcome(trial: FrozenTrial) -> list[float]:
    """Return the values of a complete trial: log loss, and parameters if they are an objective."""
    if trial.state != TrialState.COMPLETE:
        return []
    return list(trial.values)


def table(trials: list[FrozenTrial]) -> pd.DataFrame:
    """Tabulate finished trials.

    Returns
    -------
    DataFrame
        One row per trial: ``trial``, ``state``, ``val_log_loss``, ``best_so_far``, ``epochs`` and
        the suggested parameters. The log loss of a pruned trial is the lowest of its epochs; a
        failed trial has none. If the networks have different sizes, also ``parameters`` of each
        complete trial and ``pareto``, whether it is on the Pareto front.
    """
    rows = []
    sizes_differ = len({size(trial) for trial in trials} - {None}) > 1
    for trial in trials:
        losses = outcome(trial)[:1]
        if trial.state == TrialState.PRUNED:
            losses = [loss for loss in trial.intermediate_values.values() if math.isfinite(loss)]
        row = {
            "trial": trial.number,
            "state": STATES[trial.state],
            BEST: min(losses, default=math.nan),
            EPOCHS: trial.user_attrs.get(EPOCHS),
            **trial.params,
        }
        if sizes_differ:
            row |= {PARAMETERS: size(trial), "pareto": on_front(trial, trials)}
        rows.append(row)
    frame = pd.DataFrame(rows, columns=None if rows else ["trial", "state", BEST, EPOCHS])
    frame.insert(3, "best_so_far", frame[BEST].cummin().ffill())
    return frame.astype({PARAMETERS: "Int64"}) if sizes_differ else frame


def size(trial: FrozenTrial) -> int | None:
    """Return the number of parameters of a complete trial's network; None if it is unknown."""
    if len(outcome(trial)) > 1:
        return int(outcome(trial)[1])
    return trial.user_attrs.get(PARAMETERS) if outcome(trial) else None


def on_front(trial: FrozenTrial, trials: list[FrozenTrial]) -> bool:
    """Whether a trial is on the Pareto front of log loss and size.

    It is, if no other complete trial is at least as good in both and better in one.
    """

    def both(trial: FrozenTrial) -> tuple[float, int] | None:
        parameters = size(trial)
        return None if parameters is None else (outcome(trial)[0], parameters)

    own = both(trial)
    others = {pair for pair in map(both, trials) if pair is not None} - {own}
    return own is not None and not any(
        loss <= own[0] and parameters <= own[1] for loss, parameters in others
    )


def summary(trials: list[FrozenTrial], finished_before: int, best: Best, tune: TuneParams) -> str:
    """Summarise a search in one line.

    Parameters
    ----------
    trials : list of FrozenTrial
        The finished trials.
    finished_before : int
        Number of trials that had finished before the search started.
    best : Best
    tune : TuneParams

    Returns
    -------
    str
    """
    run = max(len(trials) - finished_before, 0)
    parts = [f"{run} trials run", f"{len(trials) - run} already in the study"]
    parts += [f"{sum(trial.state == TrialState.PRUNED for trial in trials)} pruned"]
    if failed := [trial for trial in trials if trial.state == TrialState.FAIL]:
        reason = failed[0].user_attrs[REASON].rstrip(".")
        parts += [f"{len(failed)} failed ({reason})"]
    if late := tune.trials - len(trials):
        parts += [f"{late} not started within tune.timeout"]
    values = ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in best.params.items()
    )
    return (
        f"{', '.join(parts)}; best is trial {best.trial} with validation log loss"
        f" {best.value:.3f}: {values}"
    )
