"""Fetch or generate the clips of the dataset and write the table of clips.

    python -m pipeline download

The ``dataset`` section of ``params.yaml`` says which dataset. Label corrections in ``labels.csv``
are applied, and clips that cannot be used are left out. The result is in ``data/``.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from pipeline import drawing, evidence, params, paths, tables
from pipeline.data import corrections, datasets, groups, inventory, preflight, prepare, source
from pipeline.data.fetch import printable
from pipeline.data.overview import overview
from pipeline.errors import UserError
from pipeline.params import DatasetParams


def main() -> str:
    """Find the dataset, correct its labels, keep the usable clips, and describe them.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        When the dataset cannot be found or read, when it cannot be split, when too many of its
        clips cannot be used, or when a later stage could not use the settings.
    """
    parameters = params.load()
    settings = parameters.dataset
    dataset = datasets.get(settings.name)
    preflight.check_features(parameters, dataset.clip_seconds or prepare.LONGEST_USUAL)
    folder, origin = source.find(dataset, settings)
    root = dataset.locate(folder)
    table = dataset.clips(root, settings)
    prepare.check_labelled(root, table)
    corrected_rows = corrections.read(dataset.name)
    corrected = corrections.apply(table, corrected_rows)
    prepare.check(labelled := corrected.dropna(subset="label"))  # before the long work
    preflight.check_test_fold(parameters, labelled)
    as_published = prepare.is_as_published(dataset, root, table["path"])
    if origin == "published" and as_published is False:
        raise UserError(
            f"The clips in {root} are not those that were published: delete {paths.DOWNLOADS} and"
            " run again."
        )

    clips, unused = prepare.sort_out(
        dataset, root, table, corrected,
        max_rejected=settings.max_rejected, min_seconds=parameters.features.min_seconds,
    )  # fmt: skip
    prepare.check(clips)
    preflight.check(parameters, clips, prepare.window_seconds(dataset, clips))

    # so that a later stage does not use the old tables with new clips if this one is killed
    for described in (paths.CLIPS, paths.DATASET):
        described.unlink(missing_ok=True)
    prepare.copy_clips(root, clips["path"].to_list())
    tables.write(paths.CLIPS, clips)
    rejected = unused["path"][unused["kind"] != inventory.OTHER]
    used = ~corrected_rows["path"].isin(rejected)
    grouped_by = groups.named(clips, settings)
    card = prepare.card(
        dataset, clips, len(rejected), origin, as_published,
        corrections.facts(corrected_rows[used]), grouped_by,
    )  # fmt: skip
    summary = prepare.summary(clips, unused)
    tables.write_json(paths.DATASET, card)
    tables.write_json(paths.SUMMARY, summary)
    drawing.save(overview(clips, dataset.title), paths.SUMMARY_PLOT)
    return _line(root, clips, summary, origin, settings, grouped_by)


def _line(
    root: Path,
    clips: pd.DataFrame,
    summary: dict[str, Any],
    origin: str,
    settings: DatasetParams,
    grouped_by: str,
) -> str:
    where = f" from {printable(settings.source or str(paths.SOUNDS))}" if origin == "local" else ""
    return evidence.lines(
        f"{settings.name}{where}: {len(clips)} clips of {summary['classes']} classes in"
        f" {summary['folds']} folds ({summary['recordings']} recordings, {summary['hours']:.1f} h),"
        f" {inventory.counted(summary)}"
        f"{groups.assumed(clips, settings, grouped_by)}",
        groups.remarks(root, clips, settings, grouped_by),
    )
