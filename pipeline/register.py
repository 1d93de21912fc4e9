"""Stage ``register``: the evaluated model as a version in the MLflow registry.

DVC cannot know what a registry holds, so this stage runs on every ``dvc repro`` and finds out
by itself whether there is anything to do.
"""

import json
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline import params, paths, runs, stage, tracking

CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True)
class Decision:
    """Which alias a candidate gets, and why, in words for the version's page."""

    alias: str
    reason: str


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
    if version is None:
        version = create(client, name, run_id, figures, record)
    aliases = client.get_model_version(name, version.version).aliases
    if not aliases and not known:
        decision = decide(client, name)
        client.set_registered_model_alias(name, decision.alias, version.version)
        client.set_model_version_tag(name, version.version, "decision", decision.reason)
        aliases = [decision.alias]
    written = {
        "name": name,
        "version": int(version.version),
        "aliases": sorted(aliases),
        "run_id": run_id,
        "tracking": "local" if tracking.uri() == tracking.DEFAULT_URI else tracking.uri(),
    }
    paths.REGISTRATION.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    state = "is there already" if known else "registered"
    return f"{name} version {version.version} {state}, alias {', '.join(sorted(aliases)) or 'none'}"


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
) -> ModelVersion:
    """Create the version of the run's model, described and tagged.

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
    return client.create_model_version(
        name,
        source=f"runs:/{run_id}/model",
        run_id=run_id,
        tags=tags,
        description=(
            f"{record.params['train.network']} on {record.tags['dataset.name']}: accuracy"
            f" {figures['accuracy']:.1%} ({figures['accuracy_low']:.1%} to"
            f" {figures['accuracy_high']:.1%}) on {figures['clips']} clips of test fold"
            f" {record.tags['split.test_fold']}."
        ),
    )


def decide(client: MlflowClient, name: str) -> Decision:
    """Say which alias a new version gets: the first one is champion, a later one challenges.

    This is the place of the promotion gate.
    """
    try:
        champion = client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException:
        return Decision(CHAMPION, "first version: there was no champion to compare with")
    return Decision(
        CHALLENGER, f"version {champion.version} is champion; promotion is by hand so far"
    )


if __name__ == "__main__":
    stage.run("register", main)
