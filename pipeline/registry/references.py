"""Find the model that a version number, alias, run id, commit, bento or service stands for."""

import contextlib
import json
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.errors import UserError
from pipeline.registry import champions
from pipeline.tracking import failures, provenance, store

TIMEOUT = 10
"""Seconds that a service has to answer."""

CARD = Path("src/bundle/card.json")
"""Path of the model's card inside a bento."""


@dataclass(frozen=True)
class ModelReference:
    """The model of a reference: its run, its version, and the card of the bento or service."""

    run_id: str | None = None
    version: ModelVersion | None = None
    card: dict[str, Any] = field(default_factory=dict)


def resolve(client: MlflowClient, name: str, reference: str) -> list[ModelReference]:
    """Find the models that a reference stands for.

    Parameters
    ----------
    client : MlflowClient
    name : str
        Name of the registered model.
    reference : str
        Number or alias of a version, run id, git revision, tag of a bento or address of a service.

    Returns
    -------
    list of ModelReference
        Several if several models were made from a git revision.

    Raises
    ------
    UserError
        When there is no such model.
    """
    if reference.startswith(("http://", "https://")):
        return [model_of_card(client, card_of_service(reference))]
    if ":" in reference:
        return [model_of_card(client, card_of_bento(reference))]
    if re.fullmatch("[0-9a-f]{32}", reference):
        with ignoring_missing():
            client.get_run(reference)
            return [ModelReference(reference, version_of_run(client, reference, name))]
    else:
        with contextlib.suppress(UserError):
            version = champions.find(client, name, reference)
            return [ModelReference(version.run_id, version)]
    commit = provenance.git("rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}")
    if commit is None:
        raise UserError(
            f"{reference} is not a version, alias or run at {store.address()}, not a git revision"
            " of this repository, and neither the tag of a bento nor the address of a service."
        )
    run_ids = runs_of_commit(client, commit)
    if not run_ids:
        raise UserError(
            f"no training run at {store.address()} was made from commit {commit}: name a version,"
            " an alias or a run."
        )
    return [ModelReference(run_id, version_of_run(client, run_id, name)) for run_id in run_ids]


@contextlib.contextmanager
def ignoring_missing() -> Iterator[None]:
    """Ignore that the store lacks something; failures of the store itself are raised."""
    try:
        yield
    except (MlflowException, OSError) as error:
        if failures.store_failed(error):
            raise


def runs_of_commit(client: MlflowClient, commit: str) -> list[str]:
    """Return the ids of the training runs of a commit, the latest first."""
    experiments = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(
        experiments,
        f"tags.`lineage.git_commit` = '{commit}' and tags.`{store.STAGE}` = 'train'"
        " and attributes.status = 'FINISHED'",
    )
    return [run.info.run_id for run in found]


def version_of_run(client: MlflowClient, run_id: str, name: str) -> ModelVersion | None:
    """Find the latest version of a run's model, if possible of the registered model `name`."""
    found = client.search_model_versions(f"run_id = '{run_id}'")
    return max(found, key=lambda v: (v.name == name, int(v.version)), default=None)


def model_of_card(client: MlflowClient, card: dict[str, Any]) -> ModelReference:
    """Find the version that the card of a service or a bento belongs to.

    Its run must be the same: in another store the version of this number is another model.
    """
    run_id = card.get("lineage", {}).get("run_id")
    with ignoring_missing():
        version = client.get_model_version(card["name"], card["version"])
        if version.run_id == run_id:
            return ModelReference(run_id, version, card)
    version = version_of_run(client, run_id, card["name"]) if run_id else None
    return ModelReference(run_id, version, card)


def card_of_service(address: str) -> dict[str, Any]:
    """Ask a running service for the card of its model.

    Raises
    ------
    UserError
        When it does not answer, or not as this project's service does.
    """
    url = f"{address.rstrip('/')}/model"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:  # noqa: S310  # http(s) only
            card = json.load(response)
            return {**card, "name": card["name"], "version": card["version"], "at": address}
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = getattr(error, "reason", None) or type(error).__name__
        raise UserError(
            f"{url} does not say which model the service has ({why}): check the address."
        ) from None


def card_of_bento(tag: str) -> dict[str, Any]:
    """Read the card of the model in a bento of the local store.

    Raises
    ------
    UserError
        When there is no such bento, or it has no card.
    """
    import bentoml

    try:
        bento = bentoml.get(tag)
        card = json.loads(Path(bento.path_of(str(CARD))).read_text(encoding="utf-8"))
    except (bentoml.exceptions.BentoMLException, OSError, ValueError):
        raise UserError(
            f"the local BentoML store has no bento {tag} with a model card: `bentoml list` shows"
            " its bentos."
        ) from None
    return {**card, "bento": str(bento.tag)}


def bentos_of_run(run_id: str) -> list[str]:
    """Return the tags of the bentos in the local store that contain a run's model."""
    import bentoml

    found = []
    for bento in bentoml.list():
        with contextlib.suppress(OSError, ValueError, KeyError):
            card = json.loads(Path(bento.path_of(str(CARD))).read_text(encoding="utf-8"))
            if card["lineage"]["run_id"] == run_id:
                found.append(str(bento.tag))
    return sorted(found)
