"""Show everything that a model was made from, and what serves it.

    python -m pipeline lineage [REFERENCE] [--json] [--image DIGEST]

REFERENCE is the number or alias of a version, an MLflow run id, a git revision, the tag of a bento
or the address of a running service. What cannot be found is listed as missing.
"""

import argparse
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline import params, paths, tables
from pipeline.data import inventory
from pipeline.errors import UserError
from pipeline.registry import champions, names, promote, references, versions
from pipeline.registry.references import ModelReference, ignoring_missing
from pipeline.tracking import provenance, runs, store

IMAGE = "image"
"""Tag of a version: digest of the container image that serves it, set when it is built."""


@dataclass
class Chain:
    """The links of the chain from the recordings to the service, for one model."""

    links: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """Reasons why links are missing, by name of the link."""

    def add(self, link: str, values: Any, why_missing: str = "") -> None:
        """Add a link, or say why it is missing if there are no values."""
        if values:
            self.links[link] = values
        else:
            self.missing[link] = why_missing


def main(reference: str, as_json: bool = False, image: str | None = None) -> str:
    """Print the chain of every model that a reference stands for.

    Parameters
    ----------
    reference : str
        See :func:`pipeline.registry.references.resolve`.
    as_json : bool
        Whether to print a JSON list of chains.
    image : str, optional
        Digest to record on the version.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        When the reference stands for no model in this store.
    """
    settings = params.load()
    client = store.connect()
    name = names.configured(client, settings)
    models = references.resolve(client, name, reference)
    if image:
        tag_image(client, models, image)
    chains = [follow(client, name, model) for model in models]
    if as_json:
        print(json.dumps([asdict(chain) for chain in chains], indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(text(chain) for chain in chains))
    missing = sum(len(chain.missing) for chain in chains)
    counted = f"{len(chains)} model{'' if len(chains) == 1 else 's'}"
    return f"{counted}, {missing} link{'' if missing == 1 else 's'} missing"


def tag_image(client: MlflowClient, models: list[ModelReference], image: str) -> None:
    """Record on a version which image serves it.

    Raises
    ------
    UserError
        When the models do not have exactly one version, or `image` does not end in a digest.
    """
    versions = [model.version for model in models if model.version]
    if len(versions) != 1:
        raise UserError("--image needs exactly one version: name it by its number or alias.")
    if not re.search(r"sha256:[0-9a-f]{64}$", image):
        raise UserError(f"--image is {image}: it must end in a digest, sha256:...")
    client.set_model_version_tag(versions[0].name, versions[0].version, IMAGE, image)


def follow(client: MlflowClient, name: str, model: ModelReference) -> Chain:
    """Collect the links of a model's chain.

    Parameters
    ----------
    client : MlflowClient
    name : str
        Name of the registered model, for a model without a version.
    model : ModelReference

    Returns
    -------
    Chain
    """
    run = None
    if model.run_id:
        with ignoring_missing():
            run = client.get_run(model.run_id)
    tags = {
        **model.card.get("lineage", {}),
        **(model.version.tags if model.version else {}),
        **(run.data.tags if run else {}),
    }
    no_run = (
        f"the run {model.run_id} is not in the store at {store.address()}"
        if model.run_id
        else "there is no record of its run"
    )
    chain = Chain()
    _add_data(chain, client, run, tags, model.card, no_run)
    _add_search(chain, client, tags)
    _add_parameters(chain, run, tags, no_run)
    _add_code(chain, tags, "it was trained outside a git repository" if run else no_run)
    _add_libraries(chain, tags, no_run)
    _add_run(chain, run, no_run)
    metrics = runs.evaluation_metrics(run.data.metrics if run else {})
    chain.add(
        "metrics",
        metrics or model.card.get("metrics", {}),
        "the run has not been evaluated" if run else no_run,
    )
    _add_version(chain, client, name, model)
    _add_serving(chain, model)
    return chain


def _add_data(
    chain: Chain,
    client: MlflowClient,
    run: Run | None,
    tags: dict[str, str],
    card: dict[str, Any],
    no_run: str,
) -> None:
    """Add the dataset, the hashes of its files, the rejected clips and the features."""
    dataset = logged_dataset(client, run) or card.get("dataset", {})
    described = ("title", "as_published", "license", "clips", "recordings", "grouped_by")
    chain.add(
        "dataset",
        _without_prefix(tags, "dataset.") | {k: dataset[k] for k in described if dataset.get(k)},
        no_run,
    )
    chain.add(
        "data",
        _recorded(tags, "audio_md5", "clips_md5"),
        "dvc.lock did not contain it" if run else no_run,
    )
    rejected = rejected_clips(client, run)
    chain.add(
        "rejected clips",
        None if rejected is None else {"clips": len(rejected), **rejected},
        f"the run has no {paths.REJECTED.name}" if run else no_run,
    )
    logged = run.data.params if run else {}
    spec = _without_prefix(logged, "features.") or card.get("features", {})
    chain.add("features", {**_recorded(tags, "features_md5"), **spec}, no_run)


def _add_search(chain: Chain, client: MlflowClient, tags: dict[str, str]) -> None:
    """Add the study and the trial that gave the hyper-parameters."""
    search = _without_prefix(tags, "tune.")
    if search.get("study") == "none":
        search = {"trials": "none; the parameters are those of `train`"}
    chain.add("search", search, "neither the run nor the version names a study")
    if "run_id" in search:
        with ignoring_missing():
            client.get_run(search["run_id"])
            return
        chain.missing["search's run"] = f"{search['run_id']} is not in the store"


def _add_parameters(chain: Chain, run: Run | None, tags: dict[str, str], no_run: str) -> None:
    """Add the training parameters and the folds."""
    logged = run.data.params if run else {}
    values = _without_prefix(logged, "train.") | _without_prefix(tags, "split.")
    chain.add("parameters", values, no_run)


def _add_code(chain: Chain, tags: dict[str, str], why_missing: str) -> None:
    """Add the commit, and whether it contains all changes."""
    code = _recorded(tags, "git_commit", "git_dirty", "git_changes")
    commit = code.get("git_commit")
    if commit:
        subject = provenance.git("log", "-1", "--format=%ad %s", "--date=iso", commit)
        if subject:
            code["subject"] = subject
        else:
            chain.missing["commit"] = f"{commit} is not in this clone: git fetch"
        if code.get("git_dirty") == "true":
            chain.missing["changes to the commit"] = (
                f"not committed when it was trained: {code.get('git_changes', 'unknown')}"
            )
    chain.add("code", code, why_missing)


def _add_libraries(chain: Chain, tags: dict[str, str], no_run: str) -> None:
    """Add the versions of the libraries, and the machine."""
    names = [
        name
        for name in _without_prefix(tags, "lineage.")
        if not name.startswith(("git_", "run_")) and not name.endswith("_md5")
    ]
    chain.add("libraries and machine", _recorded(tags, *names), no_run)


def _add_run(chain: Chain, run: Run | None, no_run: str) -> None:
    """Add the training run."""
    if run is None:
        chain.missing["run"] = no_run
        return
    values = {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "at": store.address(),
    }
    if runs.RESTORED_FROM in run.data.tags:
        values["restored_from"] = run.data.tags[runs.RESTORED_FROM]
    chain.add("run", values)
    if run.info.lifecycle_stage == "deleted":
        chain.missing["run"] = "it is deleted, and `mlflow gc` would remove it for good"


def _add_version(chain: Chain, client: MlflowClient, name: str, model: ModelReference) -> None:
    """Add the version with its decision, and the changes of the alias that concern it."""
    version = model.version
    if version is None:
        served = f"{model.card.get('name')} version {model.card.get('version')}, which is served,"
        chain.missing["version"] = (
            f"{served if model.card else 'the run'} is not in the registry at {store.address()}"
        )
        chain.missing["alias history"] = "there is no version"
        return
    shown = (versions.DECISION, promote.PROMOTED, promote.REPLACED, runs.MODEL_HASH)
    number = str(version.version)
    chain.add(
        "version",
        {
            "name": version.name,
            "version": number,
            # a search for versions leaves the aliases out
            "aliases": sorted(client.get_model_version(name, number).aliases),
            **{key: version.tags[key] for key in shown if key in version.tags},
        },
    )
    history = champions.history(client, version.name)
    own = [asdict(change) for change in history if number in (change.version, change.before)]
    chain.add(
        "alias history",
        own,
        "it has never been champion" if history else "there has been no champion",
    )


def _add_serving(chain: Chain, model: ModelReference) -> None:
    """Add the service that was asked, the bentos and the image that contain the model."""
    if "at" in model.card:
        chain.add("service", {"at": model.card["at"]})
    bentos = [model.card["bento"]] if "bento" in model.card else []
    chain.add(
        "bento",
        bentos or references.bentos_of_run(str(model.run_id)),
        "no bento in the local BentoML store contains it",
    )
    recorded = model.version.tags.get(IMAGE) if model.version else None
    chain.add(
        "image",
        recorded or model.card.get("lineage", {}).get(IMAGE),
        "the version has no digest: `python -m pipeline lineage VERSION --image ...` records one",
    )


def _without_prefix(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the values whose keys begin with `prefix`, under the rest of the key."""
    return {k.removeprefix(prefix): v for k, v in sorted(values.items()) if k.startswith(prefix)}


def _recorded(tags: Mapping[str, str], *names: str) -> dict[str, str]:
    """Return the tags ``lineage.<name>`` that have a value."""
    values = {name: tags.get(f"lineage.{name}", "unknown") for name in names}
    return {name: value for name, value in values.items() if value not in ("unknown", "none")}


def logged_dataset(client: MlflowClient, run: Run | None) -> dict[str, Any] | None:
    """Read the dataset's card, which was logged with the model; None if it is gone."""
    model_id = runs.model_of(run) if run else None
    if model_id is None:
        return None
    with ignoring_missing(), tempfile.TemporaryDirectory() as folder:
        where = client.get_logged_model(model_id).artifact_location
        source = f"{where}/extra_files/{paths.DATASET.name}"
        file = mlflow.artifacts.download_artifacts(source, dst_path=folder)
        card: dict[str, Any] = tables.read_json(Path(file))
        return card
    return None


def rejected_clips(client: MlflowClient, run: Run | None) -> dict[str, str] | None:
    """Read which clips were left out of the dataset, and why; None if there is no record."""
    if run is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = runs.download(client, run.info.run_id, paths.REJECTED.name, Path(folder))
        if file is None:
            return None
        table = tables.read(file)
        if "kind" in table:  # an earlier release listed nothing but clips
            table = table[table["kind"] != inventory.OTHER]
        return dict(zip(table["path"], table["reason"], strict=True))


def text(chain: Chain) -> str:
    """Write a chain as indented text."""
    lines: list[str] = []
    for link, values in chain.links.items():
        lines.append(link)
        if isinstance(values, dict):
            lines += [f"  {key:24} {_value(value)}" for key, value in values.items()]
        elif isinstance(values, list):
            lines += [f"  {_value(value)}" for value in values]
        else:
            lines.append(f"  {values}")
    if chain.missing:
        lines.append("missing")
        lines += [f"  {link:24} {why}" for link, why in chain.missing.items()]
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, dict) and "reason" in value:  # a change of the alias
        what = "back to version" if value["rollback"] else "version"
        before = f" after version {value['before']}" if value["before"] else ""
        when = value["at"][:19].replace("T", " ")
        return f"{when} {what} {value['version']}{before}, by {value['by']}: {value['reason']}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def run(options: argparse.Namespace) -> str:
    """Run the command with its options and return the closing line."""
    return main(options.reference, options.json, options.image)
