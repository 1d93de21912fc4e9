"""Stage ``register``: the evaluated model as a version in the MLflow registry.

DVC cannot know what a registry holds, so this stage runs on every ``dvc repro`` and finds out
by itself whether there is anything to do.
"""

import json
import tempfile

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline import gate, params, paths, runs, stage, tracking
from pipeline.errors import UserError
from pipeline.gate import Decision, Scored
from pipeline.params import RegisterParams

CHAMPION, CHALLENGER, DECISION = "champion", "challenger", "decision"


def main() -> str:
    """Make sure that the registry has the model, with alias, description, tags and figures.

    Returns
    -------
    str
        The stage's closing line.
    """
    settings = params.load()
    name = settings.register_.name
    record = runs.read()
    figures = json.loads(paths.METRICS.read_text(encoding="utf-8"))
    fingerprint = record.tags[runs.FINGERPRINT]

    client = tracking.connect()
    run_id = runs.ensure(client, record)
    runs.log_evaluation(client, run_id)
    version = registered(client, name, fingerprint)
    known = version is not None
    if version is None or DECISION not in version.tags:
        # The tag is set last: a version without it was left by a start that was stopped.
        decision = decide(client, name, record, settings.register_, but=version)
        version = version or create(client, name, run_id, figures, record, decision)
        alias = CHAMPION if decision.promote else CHALLENGER
        client.set_registered_model_alias(name, alias, version.version)
        client.set_model_version_tag(name, version.version, DECISION, decision.reason)
    aliases = sorted(client.get_model_version(name, version.version).aliases)
    written = {
        "name": name,
        "version": int(version.version),
        "aliases": aliases,
        "run_id": run_id,
        "decision": client.get_model_version(name, version.version).tags[DECISION],
    }
    paths.REGISTRATION.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    state = "is there already" if known else "registered"
    return f"{name} version {version.version} {state}, alias {', '.join(aliases) or 'none'}"


def registered(client: MlflowClient, name: str, fingerprint: str) -> ModelVersion | None:
    """Find the version with this very model, if the registry has it."""
    found = client.search_model_versions(
        f"name = '{name}' and tags.`{runs.FINGERPRINT}` = '{fingerprint}'"
    )
    return found[0] if found else None


def create(
    client: MlflowClient,
    name: str,
    run_id: str,
    figures: dict[str, float],
    record: runs.Record,
    decision: Decision,
) -> ModelVersion:
    """Create the version of the run's model, described and tagged, without an alias yet.

    Parameters
    ----------
    client : MlflowClient
    name : str
        Of the registered model.
    run_id : str
        Whose artifact ``model`` it is.
    figures : dict
        From the test fold.
    record : Record
        Of the training run.
    decision : Decision
        Of the gate, for the description.

    Returns
    -------
    ModelVersion
    """
    try:
        client.create_registered_model(
            name, description="Classifies environmental sounds; made by `dvc repro`."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {
        **{f"test_{key}": f"{value:.6g}" for key, value in figures.items()},
        **{key: value for key, value in record.tags.items() if not key.startswith("pipeline.")},
    }
    summary = (
        f"{record.params['train.network']} on {record.tags['dataset.name']}: accuracy"
        f" {figures['accuracy']:.1%} ({figures['accuracy_low']:.1%} to"
        f" {figures['accuracy_high']:.1%}) on {figures['clips']} clips of test fold"
        f" {record.tags['split.test_fold']}."
    )
    # By its own id: a version whose source is `runs:/...` cannot be loaded as `models:/...`.
    logged = client.get_run(run_id).outputs.model_outputs[-1].model_id
    return client.create_model_version(
        name,
        source=client.get_logged_model(logged).artifact_location,
        run_id=run_id,
        model_id=logged,
        tags=tags,
        description=f"{summary}\n\nDecision: {decision.reason}.\n\n{decision.table}".strip(),
    )


def decide(
    client: MlflowClient,
    name: str,
    record: runs.Record,
    settings: RegisterParams,
    but: ModelVersion | None = None,
) -> Decision:
    """Ask the gate whether the candidate becomes champion; the first version does.

    Parameters
    ----------
    client : MlflowClient
    name : str
        Of the registered model.
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
    try:
        champion = client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException:
        return Decision(promote=True, reason="first version: there was no champion to compare with")
    if but and champion.version == but.version:
        return Decision(promote=True, reason="it is the champion already")
    labels = tuple(json.loads(paths.DATASET.read_text(encoding="utf-8"))["labels"])
    candidate = scored("the candidate", record.tags, labels, pd.read_csv(paths.PREDICTIONS))
    try:
        return gate.decide(candidate, of_version(client, champion), settings)
    except gate.IncomparableError as error:
        if settings.on_incomparable == "fail":
            raise UserError(
                f"the candidate cannot be compared with the champion: {error}; set"
                " register.on_incomparable to keep or replace."
            ) from None
        kept = settings.on_incomparable == "keep"
        return Decision(
            promote=not kept,
            reason=f"not comparable, {error}; register.on_incomparable ="
            f" {settings.on_incomparable} {'keeps' if kept else 'replaces'} the champion",
        )


def scored(
    name: str, tags: dict[str, str], labels: tuple[str, ...], predictions: pd.DataFrame
) -> Scored:
    """Put together what the gate compares."""
    return Scored(name, tags["dataset.sha256"], labels, tags["split.test_fold"], predictions)


def of_version(client: MlflowClient, version: ModelVersion) -> Scored:
    """Read a version's answers for its test clips from its run.

    Raises
    ------
    IncomparableError
        When the run or its predictions are gone.
    """
    name = f"version {version.version}"
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = client.download_artifacts(
                version.run_id, str(paths.PREDICTIONS.name), dst_path=folder
            )
            predictions = pd.read_csv(file)
    except (MlflowException, OSError) as error:
        raise gate.IncomparableError(f"the predictions of {name} are gone") from error
    columns = [column for column in predictions if str(column).startswith("p_")]
    labels = tuple(str(column).removeprefix("p_") for column in columns)
    return scored(name, version.tags, labels, predictions)


if __name__ == "__main__":
    stage.run("register", main)
