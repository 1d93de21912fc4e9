"""Draw a hyper-parameter search: its history, size against loss, and Optuna's own plots."""

import warnings
from typing import TYPE_CHECKING

import pandas as pd

from pipeline import drawing
from pipeline.training.objective import BEST

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from optuna import Study
    from optuna.trial import FrozenTrial


def pictures(trials: pd.DataFrame) -> dict[str, "Figure"]:
    """Draw the history of a search and, if network sizes differ, size against loss.

    Parameters
    ----------
    trials : DataFrame
        From :func:`pipeline.training.trials.table`.

    Returns
    -------
    dict
        Figures by name: ``search`` and possibly ``pareto``.
    """
    drawn = {"search": history(trials)}
    if "pareto" in trials:
        drawn["pareto"] = pareto(trials)
    return drawn


def history(trials: pd.DataFrame) -> "Figure":
    """Draw the validation loss of each trial and the best loss so far.

    Parameters
    ----------
    trials : DataFrame
        From :func:`pipeline.training.trials.table`; may be empty.

    Returns
    -------
    Figure
    """
    picture = drawing.figure(drawing.HALF_WIDTH, 3.8)
    axes = picture.subplots()
    axes.set(title="Hyper-parameter search", xlabel="trial", ylabel="validation log loss")
    if trials.empty:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no search: tune.trials is 0", ha="center", transform=axes.transAxes)
        return picture
    axes.plot(
        trials["trial"], trials["best_so_far"], color=drawing.VALIDATION, drawstyle="steps-post",
        label="best so far",
    )  # fmt: skip
    for state, marker in (("complete", "o"), ("pruned", "x")):
        rows = trials[trials["state"] == state]
        if len(rows):
            axes.scatter(
                rows["trial"], rows[BEST], 40, drawing.TRAINING, marker=marker, label=state
            )
    failed = trials.loc[trials["state"] == "failed", "trial"]
    if len(failed):  # lines over the whole height, because a failed trial has no loss
        height = axes.get_xaxis_transform()
        axes.vlines(failed, 0, 1, drawing.TRAINING, "dotted", transform=height, label="failed")
    drawing.whole_numbers(axes.xaxis)
    picture.legend(loc="outside upper center", ncols=4)
    return picture


def pareto(trials: pd.DataFrame) -> "Figure":
    """Draw the loss of each complete trial against its number of parameters.

    Parameters
    ----------
    trials : DataFrame
        From :func:`pipeline.training.trials.table`, of a search over the network's size.

    Returns
    -------
    Figure
    """
    from matplotlib.ticker import MaxNLocator

    trials = trials.dropna(subset="parameters").sort_values("parameters")
    front = trials[trials["pareto"].astype(bool)]
    picture = drawing.figure(drawing.HALF_WIDTH, 3.8)
    axes = picture.subplots()
    axes.plot(
        front["parameters"], front[BEST], color=drawing.VALIDATION, drawstyle="steps-post",
        zorder=1, label="Pareto front",
    )  # fmt: skip
    axes.scatter(
        trials["parameters"], trials[BEST], 40, color=drawing.TRAINING, label="trial", zorder=2
    )
    for row in front.itertuples():
        axes.annotate(
            f"trial {row.trial}", (row.parameters, getattr(row, BEST)), xytext=(6, 4),
            textcoords="offset points", fontsize=9,
        )  # fmt: skip
    axes.set(title="Network size against loss", xlabel="parameters", ylabel="validation log loss")
    axes.set_xlim(0, trials["parameters"].max() * 1.1)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    picture.legend(loc="outside upper center", ncols=2)
    return picture


def by_optuna(study: "Study") -> dict[str, "Figure"]:
    """Draw Optuna's own plots: history, parallel coordinates and parameter importances.

    Parameters
    ----------
    study : optuna.Study

    Returns
    -------
    dict
        Figures by name. It is empty if fewer than two complete trials differ in their loss,
        because importances are then undefined.
    """
    import matplotlib as mpl
    from matplotlib import pyplot
    from optuna.trial import TrialState
    from optuna.visualization import matplotlib as optuna_plots

    from pipeline.training.trials import outcome

    def loss(trial: "FrozenTrial") -> float:
        return outcome(trial)[0]

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len({loss(trial) for trial in complete}) < 2:
        return {}
    # with several objectives, Optuna needs to know which one to draw
    target = loss if len(study.directions) > 1 else None
    drawn = {}
    with mpl.rc_context(), warnings.catch_warnings():  # Optuna changes the style for good
        # Optuna warns that these plots are experimental and that a low loss is good
        warnings.simplefilter("ignore")
        for name, draw, height in (
            ("optimization_history", optuna_plots.plot_optimization_history, 4.0),
            ("parallel_coordinate", optuna_plots.plot_parallel_coordinate, 4.5),
            ("importances", optuna_plots.plot_param_importances, 3.0),
        ):
            axes = draw(study, target=target, target_name="validation log loss")
            drawn[name] = _tidy(axes, height)
            pyplot.close(drawn[name])
    if legend := drawn["importances"].axes[0].get_legend():
        legend.remove()  # it names a single colour and covers the bars
    return drawn


def _tidy(axes: "Axes", height: float) -> "Figure":
    """Give a plot of Optuna our size and background, in inches."""
    from matplotlib.collections import LineCollection

    picture: Figure = axes.get_figure(root=True)  # type: ignore[assignment]
    picture.set_size_inches(11, height)
    picture.set_layout_engine("tight")  # a saved figure would cut off its lowest labels
    for panel in picture.axes:
        panel.set_facecolor("white")
        for lines in panel.collections:
            if isinstance(lines, LineCollection):  # in Optuna's blues the worst trial is white
                lines.set_cmap("copper")
    return picture
