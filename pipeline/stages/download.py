"""Stage ``download``: fetch or generate the clips and make the clips table."""

from pipeline import drawing, params, paths
from pipeline.data import corrections, datasets, prepare
from pipeline.data.fetch import shown
from pipeline.data.overview import overview
from pipeline.errors import UserError


def main() -> str:
    """Run the stage.

    Returns
    -------
    str
        The closing line.
    """
    settings = params.load().dataset
    dataset = datasets.get(settings.name)
    folder, origin = prepare.find(dataset, settings)
    source = "" if origin != "local" else f" from {shown(settings.source or str(paths.SOUNDS))}"
    root = dataset.locate(folder)
    table = dataset.clips(root, settings)
    if table["label"].isna().all():
        raise UserError(
            f"There are no labelled clips in {root}: put one sub-folder a label there, or set"
            " dataset.source."
        )
    corrected_rows = corrections.read(dataset.name)
    corrected = corrections.apply(table, corrected_rows)
    datasets.check(corrected.dropna(subset="label"))  # before the long work

    as_published = None
    if dataset.content is not None:
        there = [path for path in table["path"] if (root / path).is_file()]
        as_published = datasets.content_hash(root, there) == dataset.content
        if origin == "published" and not as_published:
            raise UserError(
                f"The clips in {root} are not those that were published: delete {paths.DOWNLOADS}"
                " and run again."
            )

    clips, rejected = prepare.measure(root, corrected)
    prepare.write_table(rejected, paths.REJECTED)
    if len(rejected) > settings.max_rejected * len(table):
        raise UserError(
            f"{len(rejected)} of {len(table)} clips cannot be used, more than"
            f" dataset.max_rejected = {settings.max_rejected:g} allows: {paths.REJECTED} says why;"
            " mend them or raise it."
        )
    datasets.check(clips)

    prepare.materialise(root, clips["path"].to_list())
    prepare.write_table(clips, paths.CLIPS)
    labels, folds = sorted(clips["label"].unique()), sorted(int(f) for f in clips["fold"].unique())
    numbers = {
        "clips": len(clips),
        "recordings": clips["recording"].nunique(),
        "rejected": len(rejected),
    }
    card = {
        "name": dataset.name,
        "title": dataset.title,
        "license": dataset.license,
        "homepage": dataset.homepage,
        "source": origin,
        "as_published": as_published,
        "clip_seconds": dataset.clip_seconds or prepare.usual_seconds(clips["seconds"]),
        "labels": labels,
        "folds": folds,
        **numbers,
        **corrections.facts(corrected_rows[~corrected_rows["path"].isin(rejected["path"])]),
        "sha256": datasets.content_hash(paths.AUDIO, clips["path"]),
    }
    hours = round(clips["seconds"].sum() / 3600, 3)
    prepare.write_json(card, paths.DATASET)
    prepare.write_json(
        {**numbers, "classes": len(labels), "folds": len(folds), "hours": hours}, paths.SUMMARY
    )
    drawing.save(overview(clips, dataset.title), paths.SUMMARY_PLOT)
    return (
        f"{dataset.name}{source}: {len(clips)} clips of {len(labels)} classes in {len(folds)} folds"
        f" ({numbers['recordings']} recordings, {hours:.1f} h), {len(rejected)} rejected"
    )
