"""Register an evaluated model as a version in the MLflow registry, with decision and card.

DVC cannot know what a registry holds. The stage ``register`` therefore runs on every ``dvc repro``
and finds out by itself whether there is anything to do.
"""

import hashlib
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
"""Tag with the gate's reason. It is set last: a version without it was not finished."""

TABLE, AGAINST, CARD_SHA256 = "decision_table", "decision_against", "card_sha256"
"""Tags: the contingency table, the champion at the time, and the hash of the model card."""

CARD = "model_card.md"
"""Artifact of the training run."""


def registered(client: MlflowClient, name: str, record: runs.Record) -> ModelVersion | None:
    """Find the version with the same weights; None if the registry has none with all its files.

    If two processes registered the model at the same moment, both find the older version.
    """
    versions = client.search_model_versions(
        f"name = '{name}' and tags.`{runs.MODEL_HASH}` = '{record.tags[runs.MODEL_HASH]}'"
    )
    oldest_first = sorted(versions, key=lambda version: int(version.version))
    return next((version for version in oldest_first if has_model(client, version)), None)


def has_model(client: MlflowClient, version: ModelVersion) -> bool:
    """Whether the store still has the files of a version's model."""
    run = store.if_exists(lambda: client.get_run(version.run_id))
    return run is not None and runs.has_files(client, runs.model_of(run))


def create(client: MlflowClient, name: str, run_id: str, record: runs.Record) -> ModelVersion:
    """Register the model of a run as a new version, with tags and without an alias.

    Parameters
    ----------
    client : MlflowClient
    name : str
        Name of the registered model.
    run_id : str
        The run that logged the model.
    record : Record
        Record of the training run.

    Returns
    -------
    ModelVersion
        The new version, or the one of another process that registered the same model first.
    """
    try:
        client.create_registered_model(
            name, description="Classifies environmental sounds; made by `dvc repro`."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # By the model's id: a version whose source is `runs:/...` cannot be loaded as `models:/...`.
    model_id = runs.model_of(client.get_run(run_id))
    version = client.create_model_version(
        name,
        source=client.get_logged_model(model_id).artifact_location,
        run_id=run_id,
        model_id=model_id,
        tags={k: v for k, v in record.tags.items() if not k.startswith("pipeline.")},
    )
    first = registered(client, name, record)
    if first and first.version != version.version:
        client.delete_model_version(name, version.version)
        return first
    return version


def decide(
    client: MlflowClient,
    name: str,
    champion: ModelVersion | None,
    record: runs.Record,
    settings: RegisterParams,
    candidate: ModelVersion | None = None,
) -> Decision:
    """Decide whether the candidate becomes champion: the first version does, others ask the gate.

    Parameters
    ----------
    client : MlflowClient
    name : str
        Name of the registered model.
    champion : ModelVersion or None
        The version to compare with.
    record : Record
        Record of the candidate's training run. Its predictions are those that the stage
        ``evaluate`` wrote.
    settings : RegisterParams
    candidate : ModelVersion, optional
        The candidate's own version, if it is registered.

    Returns
    -------
    Decision

    Raises
    ------
    UserError
        When the two cannot be compared and ``register.on_incomparable`` is ``fail``.
    """
    if champion is None:
        first = not champions.history(client, name)
        return Decision(
            True, f"{'first version: ' if first else ''}there was no champion to compare with"
        )
    if candidate and champion.version == candidate.version:
        changes = champions.history(client, champion.name)
        reasons = [change.reason for change in changes if change.version == champion.version]
        return Decision(True, reasons[-1] if reasons else "it is the champion already")
    labels = tuple(tables.read_json(paths.DATASET)["labels"])
    predictions = tables.read(paths.PREDICTIONS)
    evaluated = _evaluated("the candidate", record.tags, labels, predictions)
    try:
        decision = gate.decide(evaluated, evaluated_version(client, champion), settings)
    except gate.IncomparableError as error:
        decision = _without_comparison(error, settings)
    return replace(decision, against=str(champion.version))


def _without_comparison(error: gate.IncomparableError, settings: RegisterParams) -> Decision:
    """Decide about models that cannot be compared, as ``register.on_incomparable`` says."""
    if settings.on_incomparable == "fail":
        raise UserError(
            f"the candidate cannot be compared with the champion: {error}; set"
            " register.on_incomparable to keep or replace."
        ) from None
    replaces = settings.on_incomparable == "replace"
    return Decision(
        promote=replaces,
        reason=f"the candidate cannot be compared with the champion: {error};"
        f" register.on_incomparable = {settings.on_incomparable}, so the champion"
        f" {'is replaced' if replaces else 'stays'}",
    )


def evaluated_version(client: MlflowClient, version: ModelVersion) -> EvaluatedModel:
    """Read a version's test predictions, and which clips trained it, from its run.

    Raises
    ------
    IncomparableError
        When the run or its predictions are gone, or another project registered the version.
    """
    name = f"version {version.version}"
    if not version.run_id:
        raise gate.IncomparableError(f"{name} was registered without a run")
    predictions = _logged_table(client, version, paths.PREDICTIONS)
    if predictions is None:
        raise gate.IncomparableError(f"the predictions of {name} are gone")
    clips = _logged_table(client, version, paths.CLIPS)
    columns = [column for column in predictions if str(column).startswith("p_")]
    labels = tuple(str(column).removeprefix("p_") for column in columns)
    try:
        return _evaluated(name, version.tags, labels, predictions, clips)
    except KeyError as missing:
        raise gate.IncomparableError(f"{name} has no tag {missing}") from missing


def _evaluated(
    name: str,
    tags: dict[str, str],
    labels: tuple[str, ...],
    predictions: pd.DataFrame,
    clips: pd.DataFrame | None = None,
) -> EvaluatedModel:
    trained_on: frozenset[str] = frozenset()
    if clips is not None:
        folds = f"{tags['split.train_folds']},{tags['split.validation_fold']}".split(",")
        trained_on = frozenset(clips.loc[clips["fold"].astype(str).isin(folds), "path"])
    return EvaluatedModel(
        name, tags["dataset.sha256"], labels, tags["split.test_fold"], predictions, trained_on
    )


def _logged_table(client: MlflowClient, version: ModelVersion, path: Path) -> pd.DataFrame | None:
    """Read a table from the artifacts of a version's run; None if it is gone."""
    with tempfile.TemporaryDirectory() as folder:
        file = runs.download(client, version.run_id, path.name, Path(folder))
        return tables.read(file) if file else None


def give_alias(
    client: MlflowClient,
    version: ModelVersion,
    decision: Decision,
    record: runs.Record,
    settings: RegisterParams,
) -> Decision:
    """Make a version champion or challenger.

    Parameters
    ----------
    client : MlflowClient
    version : ModelVersion
    decision : Decision
        The decision against the champion that was found first.
    record, settings
        For another decision, if another version has become champion in the meantime.

    Returns
    -------
    Decision
        The last decision.
    """
    name, number = version.name, str(version.version)
    while decision.promote:
        champion = champions.replace_champion(
            client, name, number, decision.against, decision.reason
        )
        if champion == number:
            return decision
        other = client.get_model_version(name, champion) if champion else None
        decision = decide(client, name, other, record, settings, candidate=version)
    champions.set_alias(client, name, CHALLENGER, number)
    return decision


def set_tags(client: MlflowClient, version: ModelVersion, tags: dict[str, str]) -> None:
    """Set those tags of a version that differ."""
    for key, value in tags.items():
        if version.tags.get(key, "") != value:
            set_tag(client, version, key, value)


@champions.retry_lost_race
def set_tag(client: MlflowClient, version: ModelVersion, key: str, value: str) -> None:
    """Set a tag of a version."""
    client.set_model_version_tag(version.name, version.version, key, value)


def describe(
    client: MlflowClient, version: ModelVersion, record: runs.Record, decision: str
) -> None:
    """Update a version's metrics and its model card, on its page and among the run's artifacts.

    Parameters
    ----------
    client : MlflowClient
    version : ModelVersion
    record : Record
    decision : str
        The gate's reason.
    """
    metrics = tables.read_json(paths.METRICS)
    set_tags(
        client,
        version,
        {f"{runs.TEST_PREFIX}{k}": f"{value:.6g}" for k, value in runs.numbers(metrics).items()},
    )
    tags = client.get_model_version(version.name, version.version).tags
    facts = _facts(client, version, record, decision, metrics, tags)
    card = modelcard.render(facts)
    digest = hashlib.sha256(card.encode()).hexdigest()
    files = {entry.path for entry in client.list_artifacts(version.run_id)}
    if tags.get(CARD_SHA256) == digest and CARD in files:
        return
    client.log_text(version.run_id, card, CARD)
    client.update_model_version(version.name, version.version, modelcard.brief(facts))
    set_tag(client, version, CARD_SHA256, digest)


def _facts(
    client: MlflowClient,
    version: ModelVersion,
    record: runs.Record,
    decision: str,
    metrics: dict[str, float],
    tags: dict[str, str],
) -> Facts:
    """Collect what the model card says."""
    number = tags.get(AGAINST)  # this version may have been deleted since
    champion = (
        store.if_exists(lambda: client.get_model_version(version.name, number)) if number else None
    )
    return Facts(
        model=f"{version.name} version {version.version}",
        params=record.params,
        training_metrics=record.metrics,
        tags=record.tags,
        dataset=tables.read_json(paths.DATASET),
        metrics=metrics,
        classes=tables.read(paths.PER_CLASS),
        predictions=tables.read(paths.PREDICTIONS),
        decision=decision,
        table=tags.get(TABLE, ""),
        links=links(client, version, champion),
        champion=accuracy_of(champion) if champion else {},
    )


def accuracy_of(version: ModelVersion) -> dict[str, float]:
    """Read a version's test accuracy and its interval from the tags; empty if they lack them."""
    names = ("accuracy", "accuracy_low", "accuracy_high", "accuracy_confidence")
    try:
        return {name: float(version.tags[f"{runs.TEST_PREFIX}{name}"]) for name in names}
    except KeyError:  # another project registered it
        return {}


def links(
    client: MlflowClient, version: ModelVersion, champion: ModelVersion | None
) -> dict[str, str]:
    """Find the addresses, within the MLflow UI, of the runs of the versions that were compared.

    Returns
    -------
    dict
        Text of the link and address.
    """
    versions = {"the training run": version}
    if champion:
        versions[f"the run of version {champion.version}"] = champion
    addresses = {}
    for title, linked in versions.items():
        run = linked.run_id and store.if_exists(partial(client.get_run, linked.run_id))
        if run:
            addresses[title] = f"#/experiments/{run.info.experiment_id}/runs/{linked.run_id}"
    return addresses
