"""Stage ``register``: the evaluated model as a version in the MLflow registry.

DVC cannot know what a registry holds, so this stage runs on every ``dvc repro`` and finds out
by itself whether there is anything to do.
"""

import hashlib
import json
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline import paths, tables
from pipeline.errors import UserError
from pipeline.params import RegisterParams
from pipeline.registry import champions, gate, modelcard
from pipeline.registry.champions import CHALLENGER
from pipeline.registry.gate import Decision, EvaluatedModel
from pipeline.registry.modelcard import Facts
from pipeline.tracking import runs, store

DECISION = "decision"
"""Tag with the gate's reason; set last, so a version without it was left by a stopped start."""

TABLE, AGAINST, CARD_SHA256 = "decision_table", "decision_against", "card_sha256"

CARD = "model_card.md"


def registered(client: MlflowClient, name: str, record: runs.Record) -> ModelVersion | None:
    """Find the version with this very model, if the registry has it with its files.

    The oldest one, should there be more: of two that were registered at the same moment, both
    sides agree on it.
    """
    fingerprint = record.tags[runs.MODEL_HASH]
    found = client.search_model_versions(
        f"name = '{name}' and tags.`{runs.MODEL_HASH}` = '{fingerprint}'"
    )
    oldest_first = sorted(found, key=lambda version: int(version.version))
    return next((version for version in oldest_first if is_whole(client, version)), None)


def is_whole(client: MlflowClient, version: ModelVersion) -> bool:
    """Whether the model that a version stands for is still there."""
    run = store.if_there(lambda: client.get_run(version.run_id))
    return run is not None and runs.has_files(client, runs.model_of(run))


def create(client: MlflowClient, name: str, run_id: str, record: runs.Record) -> ModelVersion:
    """Create the version of the run's model, tagged, without an alias yet.

    Parameters
    ----------
    client : MlflowClient
    name : str
        Of the registered model.
    run_id : str
        That logged the model.
    record : Record
        Of the training run.

    Returns
    -------
    ModelVersion
        Another one's, where the same model was registered at the same moment.
    """
    try:
        client.create_registered_model(
            name, description="Classifies environmental sounds; made by `dvc repro`."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # By its own id: a version whose source is `runs:/...` cannot be loaded as `models:/...`.
    logged = runs.model_of(client.get_run(run_id))
    mine = client.create_model_version(
        name,
        source=client.get_logged_model(logged).artifact_location,
        run_id=run_id,
        model_id=logged,
        tags={k: v for k, v in record.tags.items() if not k.startswith("pipeline.")},
    )
    first = registered(client, name, record)
    if first and first.version != mine.version:
        client.delete_model_version(name, mine.version)
        return first
    return mine


def decide(
    client: MlflowClient,
    champion: ModelVersion | None,
    record: runs.Record,
    settings: RegisterParams,
    but: ModelVersion | None = None,
) -> Decision:
    """Ask the gate whether the candidate becomes champion; the first version does.

    Parameters
    ----------
    client : MlflowClient
    champion : ModelVersion or None
        To compare with.
    record : Record
        Of the candidate's training run; its answers are the evaluate stage's output.
    settings : RegisterParams
    but : ModelVersion, optional
        The candidate itself, where it has been registered.

    Returns
    -------
    Decision

    Raises
    ------
    UserError
        When the two cannot be compared and ``register.on_incomparable`` says ``fail``.
    """
    if champion is None:
        first = not champions.read(client, settings.name)
        return Decision(
            True, f"{'first version: ' if first else ''}there was no champion to compare with"
        )
    if but and champion.version == but.version:
        log = champions.read(client, champion.name)
        told = [move for move in log if move.version == champion.version]
        return Decision(True, told[-1].reason if told else "it is the champion already")
    labels = tuple(json.loads(paths.DATASET.read_text(encoding="utf-8"))["labels"])
    predictions = tables.read(paths.PREDICTIONS)
    candidate = scored("the candidate", record.tags, labels, predictions)
    try:
        decision = gate.decide(candidate, of_version(client, champion), settings)
    except gate.IncomparableError as error:
        if settings.on_incomparable == "fail":
            raise UserError(
                f"the candidate cannot be compared with the champion: {error}; set"
                " register.on_incomparable to keep or replace."
            ) from None
        kept = settings.on_incomparable == "keep"
        decision = Decision(
            promote=not kept,
            reason=f"not comparable, {error}; register.on_incomparable ="
            f" {settings.on_incomparable} {'keeps' if kept else 'replaces'} the champion",
        )
    return replace(decision, against=str(champion.version))


def scored(
    name: str,
    tags: dict[str, str],
    labels: tuple[str, ...],
    predictions: pd.DataFrame,
    clips: pd.DataFrame | None = None,
) -> EvaluatedModel:
    """Put together what the gate compares."""
    trained_on: frozenset[str] = frozenset()
    if clips is not None:
        folds = f"{tags['split.train_folds']},{tags['split.validation_fold']}".split(",")
        trained_on = frozenset(clips.loc[clips["fold"].astype(str).isin(folds), "path"])
    return EvaluatedModel(
        name, tags["dataset.sha256"], labels, tags["split.test_fold"], predictions, trained_on
    )


def of_version(client: MlflowClient, version: ModelVersion) -> EvaluatedModel:
    """Read a version's answers for its test clips, and what trained it, from its run.

    Raises
    ------
    IncomparableError
        When the run or its predictions are gone, or the version is not of this pipeline.
    """
    name = f"version {version.version}"
    if not version.run_id:
        raise gate.IncomparableError(f"{name} was registered without a run")
    try:
        predictions = _table(client, version, paths.PREDICTIONS)
    except (MlflowException, OSError) as error:
        if store.store_failed(error):
            raise
        raise gate.IncomparableError(f"the predictions of {name} are gone") from error
    try:
        clips = _table(client, version, paths.CLIPS)
    except (MlflowException, OSError) as error:
        if store.store_failed(error):
            raise
        clips = None
    columns = [column for column in predictions if str(column).startswith("p_")]
    labels = tuple(str(column).removeprefix("p_") for column in columns)
    try:
        return scored(name, version.tags, labels, predictions, clips)
    except KeyError as error:
        raise gate.IncomparableError(f"{name} does not say what {error} was") from error


def _table(client: MlflowClient, version: ModelVersion, path: Path) -> pd.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        file = client.download_artifacts(version.run_id, path.name, dst_path=folder)
        return tables.read(Path(file))


def give_alias(
    client: MlflowClient,
    version: ModelVersion,
    decision: Decision,
    record: runs.Record,
    settings: RegisterParams,
) -> Decision:
    """Give a version the alias that it deserves.

    Parameters
    ----------
    client : MlflowClient
    version : ModelVersion
    decision : Decision
    record, settings
        To decide again where another version has become champion meanwhile.

    Returns
    -------
    Decision
        The last one.
    """
    name, number = version.name, str(version.version)
    while decision.promote:
        stands = champions.replace(client, name, number, decision.against, decision.reason)
        if stands == number:
            return decision
        other = client.get_model_version(name, stands) if stands else None
        decision = decide(client, other, record, settings, but=version)
    client.set_registered_model_alias(name, CHALLENGER, number)
    return decision


def set_tags(client: MlflowClient, version: ModelVersion, tags: dict[str, str]) -> None:
    """Set the tags of a version that differ."""
    for key, value in tags.items():
        if version.tags.get(key, "") != value:
            client.set_model_version_tag(version.name, version.version, key, value)


def describe(
    client: MlflowClient,
    version: ModelVersion,
    record: runs.Record,
    decision: str,
) -> None:
    """Bring a version's figures and its card up to date, on its page and among the artifacts.

    Parameters
    ----------
    client : MlflowClient
    version : ModelVersion
    record : Record
    decision : str
        The gate's reason.
    """
    figures = json.loads(paths.METRICS.read_text(encoding="utf-8"))
    set_tags(client, version, {f"test_{key}": f"{value:.6g}" for key, value in figures.items()})
    tags = client.get_model_version(version.name, version.version).tags
    number = tags.get(AGAINST)  # it may have been deleted since
    against = (
        store.if_there(lambda: client.get_model_version(version.name, number)) if number else None
    )
    facts = Facts(
        model=f"{version.name} version {version.version}",
        params=record.params,
        metrics=record.metrics,
        tags=record.tags,
        dataset=json.loads(paths.DATASET.read_text(encoding="utf-8")),
        figures=figures,
        classes=tables.read(paths.PER_CLASS),
        predictions=tables.read(paths.PREDICTIONS),
        decision=decision,
        table=tags.get(TABLE, ""),
        links=links(client, version, against),
        champion=accuracy_of(against) if against else {},
    )
    card = modelcard.render(facts)
    digest = hashlib.sha256(card.encode()).hexdigest()
    files = {entry.path for entry in client.list_artifacts(version.run_id)}
    if tags.get(CARD_SHA256) == digest and CARD in files:
        return
    client.log_text(version.run_id, card, CARD)
    client.update_model_version(version.name, version.version, modelcard.brief(facts))
    client.set_model_version_tag(version.name, version.version, CARD_SHA256, digest)


def accuracy_of(version: ModelVersion) -> dict[str, float]:
    """Read a version's accuracy on its test clips, with the interval, from its tags."""
    names = ("accuracy", "accuracy_low", "accuracy_high", "accuracy_confidence")
    try:
        return {name: float(version.tags[f"test_{name}"]) for name in names}
    except KeyError:  # it is not of this pipeline
        return {}


def links(
    client: MlflowClient, version: ModelVersion, against: ModelVersion | None
) -> dict[str, str]:
    """Find the addresses of the runs that were compared, within the MLflow UI.

    Returns
    -------
    dict
        What to call the run, and where it is.
    """
    found = {"the training run": version}
    if against:
        found[f"the run of version {against.version}"] = against
    addresses = {}
    for what, of in found.items():
        run = of.run_id and store.if_there(partial(client.get_run, of.run_id))
        if run:
            addresses[what] = f"#/experiments/{run.info.experiment_id}/runs/{of.run_id}"
    return addresses
