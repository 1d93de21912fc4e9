"""The whole chain of a model, from any of its ends.

    python -m pipeline lineage [END] [--json]

END is a version's number, an alias, an MLflow run id, a git revision, a bento's tag, or the
address of a running service. A link that cannot be followed is named as missing.
"""

import argparse
import contextlib
import json
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline import params, paths, tables
from pipeline.errors import UserError
from pipeline.registry import champions, promote, versions
from pipeline.tracking import provenance, runs, store

IMAGE = "image"
"""Tag of a version: digest of the image that serves it, noted by whoever built it."""

SECONDS = 10
"""That a service has to answer."""

CARD = Path("src/bundle/card.json")
"""Where a bento has the card of its model."""


@dataclass
class Chain:
    """All that is known of one model; what cannot be found is named in `missing`."""

    links: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """Why, by the link's name."""

    def put(self, link: str, values: Any, why: str = "") -> None:
        """Add a link, or say why there is none."""
        if values:
            self.links[link] = values
        else:
            self.missing[link] = why


@dataclass(frozen=True)
class End:
    """Where a chain begins: a run, a version, or the card of something that serves one."""

    run_id: str | None = None
    version: ModelVersion | None = None
    card: dict[str, Any] = field(default_factory=dict)


def main(wanted: str, as_json: bool = False, image: str | None = None) -> str:
    """Print the chains that `wanted` is an end of.

    Parameters
    ----------
    wanted : str
        One of the ends.
    as_json : bool
        For programs: a list of chains.
    image : str, optional
        Digest to note on the version.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        When `wanted` is no end of anything that this store knows.
    """
    name = params.load().register_.name
    client = store.connect()
    ends = find(client, name, wanted)
    if image:
        tag_image(client, ends, image)
    chains = [follow(client, name, end) for end in ends]
    if as_json:
        print(json.dumps([asdict(chain) for chain in chains], indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(text(chain) for chain in chains))
    missing = sum(len(chain.missing) for chain in chains)
    models = f"{len(chains)} model{'s' if len(chains) > 1 else ''}"
    return f"{models}, {missing} link{'' if missing == 1 else 's'} missing"


def find(client: MlflowClient, name: str, wanted: str) -> list[End]:
    """Find what `wanted` names.

    Parameters
    ----------
    client : MlflowClient
    name : str
        Of the registered model.
    wanted : str

    Returns
    -------
    list of End
        Several for a git revision from which several models were made.

    Raises
    ------
    UserError
        When there is nothing of the kind.
    """
    if wanted.startswith(("http://", "https://")):
        return [of_card(client, asked(wanted))]
    if ":" in wanted:
        return [of_card(client, in_bento(wanted))]
    if re.fullmatch("[0-9a-f]{32}", wanted):
        with absent():
            client.get_run(wanted)
            return [End(run_id=wanted, version=made_by(client, wanted))]
    else:
        with contextlib.suppress(UserError):
            version = champions.find(client, name, wanted)
            return [End(version.run_id, version)]
    commit = provenance.git("rev-parse", "--verify", "--quiet", f"{wanted}^{{commit}}")
    if commit:
        found = made_from(client, commit)
        if found:
            return [End(run_id, made_by(client, run_id)) for run_id in found]
        raise UserError(f"no training run at {store.address()} was made from commit {commit}.")
    raise UserError(
        f"{wanted} is no version, alias or run at {store.address()}, no git revision here, and"
        " neither a bento's tag nor a service's address."
    )


@contextlib.contextmanager
def absent() -> Iterator[None]:
    """Pass over what the store does not have; let its failures through."""
    try:
        yield
    except (MlflowException, OSError) as error:
        if store.store_failed(error):
            raise


def made_from(client: MlflowClient, commit: str) -> list[str]:
    """Ids of the training runs of a commit, the latest first."""
    experiments = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(
        experiments,
        f"tags.`lineage.git_commit` = '{commit}' and tags.`{store.STAGE}` = 'train'"
        " and attributes.status = 'FINISHED'",
    )
    return [run.info.run_id for run in found]


def made_by(client: MlflowClient, run_id: str) -> ModelVersion | None:
    """Find the version of a run's model, the latest should there be several."""
    found = client.search_model_versions(f"run_id = '{run_id}'")
    return max(found, key=lambda version: int(version.version), default=None)


def of_card(client: MlflowClient, card: dict[str, Any]) -> End:
    """Find the version whose card a service or a bento has.

    The run has to agree: another store's version of the same number is another model.
    """
    run_id = card.get("lineage", {}).get("run_id")
    with absent():
        version = client.get_model_version(card["name"], card["version"])
        if version.run_id == run_id:
            return End(run_id, version, card)
    return End(run_id, made_by(client, run_id) if run_id else None, card)


def asked(address: str) -> dict[str, Any]:
    """Ask a running service for its card.

    Raises
    ------
    UserError
        When it does not answer as this project's service does.
    """
    where = f"{address.rstrip('/')}/model"
    try:
        with urllib.request.urlopen(where, timeout=SECONDS) as answer:  # noqa: S310  # http(s) only
            card = json.load(answer)
            return {**card, "name": card["name"], "version": card["version"], "at": address}
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = getattr(error, "reason", None) or type(error).__name__
        raise UserError(f"the service at {where} does not tell its model: {said}.") from None


def in_bento(tag: str) -> dict[str, Any]:
    """Read the card of a bento in the local store.

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
            f"there is no bento {tag} with a model's card here: `bentoml list` shows what there is."
        ) from None
    return {**card, "bento": str(bento.tag)}


def bentos_of(run_id: str) -> list[str]:
    """Tags of the bentos in the local store that serve a run's model."""
    import bentoml

    found = []
    for bento in bentoml.list():
        with contextlib.suppress(OSError, ValueError, KeyError):
            card = json.loads(Path(bento.path_of(str(CARD))).read_text(encoding="utf-8"))
            if card["lineage"]["run_id"] == run_id:
                found.append(str(bento.tag))
    return sorted(found)


def tag_image(client: MlflowClient, ends: list[End], image: str) -> None:
    """Note on a version which image serves it.

    Raises
    ------
    UserError
        When it is not clear which version is meant, or `image` does not end in a digest.
    """
    versions = [end.version for end in ends if end.version]
    if len(versions) != 1:
        raise UserError("--image needs an end that leads to one version.")
    if not re.search(r"sha256:[0-9a-f]{64}$", image):
        raise UserError(f"--image is {image}: it has to end in a digest, sha256:...")
    client.set_model_version_tag(versions[0].name, versions[0].version, IMAGE, image)


def follow(client: MlflowClient, name: str, end: End) -> Chain:
    """Follow the chain from one end to all others.

    Parameters
    ----------
    client : MlflowClient
    name : str
        Of the registered model, where the end has no version that tells.
    end : End

    Returns
    -------
    Chain
    """
    chain = Chain()
    run = None
    if end.run_id:
        with absent():
            run = client.get_run(end.run_id)
    tags = {
        **end.card.get("lineage", {}),
        **(end.version.tags if end.version else {}),
        **(run.data.tags if run else {}),
    }
    where = (
        f"the run {end.run_id} is not in the store at {store.address()}"
        if end.run_id
        else "no run is named"
    )
    dataset = logged_dataset(client, run) or {
        key: value for key, value in end.card.get("dataset", {}).items() if value
    }
    chain.put(
        "dataset",
        pick(tags, "dataset.")
        | {k: dataset[k] for k in ("title", "as_published", "license", "clips") if dataset.get(k)},
        where,
    )
    chain.put(
        "data", known(tags, "audio_md5", "clips_md5"), "dvc.lock did not name it" if run else where
    )
    rejected = rejections(client, run)
    chain.put(
        "rejected clips",
        None if rejected is None else {"clips": len(rejected), **rejected},
        "the run has no rejected.csv" if run else where,
    )
    logged = run.data.params if run else {}
    spec = pick(logged, "features.") or end.card.get("features", {})
    chain.put("features", {**known(tags, "features_md5"), **spec}, where)
    put_search(chain, client, tags)
    chain.put("parameters", pick(logged, "train.") | pick(tags, "split."), where)
    put_code(chain, tags, "it was trained outside of a git repository" if run else where)
    libraries = [k for k in pick(tags, "lineage.") if not k.startswith(("git_", "run_"))]
    libraries = [k for k in libraries if not k.endswith("_md5")]
    chain.put("libraries and machine", known(tags, *libraries), where)
    put_run(chain, run, where)
    test = run.data.metrics if run else {}
    figures = pick(test, "test_") or end.card.get("metrics", {})
    chain.put("metrics", figures, "the run has not been evaluated" if run else where)
    put_version(chain, client, name, end)
    put_serving(chain, end)
    return chain


def put_search(chain: Chain, client: MlflowClient, tags: dict[str, str]) -> None:
    """Add the study and the trial whose parameters were taken."""
    search = pick(tags, "tune.")
    if search.get("study") == "none":
        search = {"trials": "none, the parameters are those of `train`"}
    chain.put("search", search, "neither run nor version names a study")
    if "run_id" in search:
        with absent():
            client.get_run(search["run_id"])
            return
        chain.missing["search's run"] = f"{search['run_id']} is not in the store"


def put_code(chain: Chain, tags: dict[str, str], why: str) -> None:
    """Add the commit, and whether it says all."""
    code = known(tags, "git_commit", "git_dirty", "git_changes")
    commit = code.get("git_commit")
    if commit:
        subject = provenance.git("log", "-1", "--format=%ad %s", "--date=iso", commit)
        if subject:
            code["subject"] = subject
        else:
            chain.missing["commit"] = f"{commit} is not in this clone: git fetch"
        if code.get("git_dirty") == "true":
            chain.missing["changes to the commit"] = (
                f"not committed when it was trained: {code.get('git_changes', 'not on record')}"
            )
    chain.put("code", code, why)


def put_run(chain: Chain, run: Run | None, why: str) -> None:
    """Add the training run."""
    if run is None:
        chain.missing["run"] = why
        return
    values = {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "at": store.address(),
    }
    before = run.data.tags.get(runs.RESTORED_FROM)
    chain.put("run", values | ({"restored_from": before} if before else {}))
    if run.info.lifecycle_stage == "deleted":
        chain.missing["run"] = "it is deleted: `mlflow gc` would remove it for good"


def put_version(chain: Chain, client: MlflowClient, name: str, end: End) -> None:
    """Add the version with its decision, and the moves of the alias."""
    version = end.version
    if version is None:
        served = f"{end.card.get('name')} version {end.card.get('version')}, which is served, "
        chain.missing["version"] = (
            f"{served if end.card else 'the run '}is not in the registry at {store.address()}"
        )
    else:
        told = (versions.DECISION, promote.PROMOTED, promote.REPLACED, runs.MODEL_HASH)
        chain.put(
            "version",
            {
                "name": version.name,
                "version": str(version.version),
                # a search does not tell them
                "aliases": sorted(client.get_model_version(name, version.version).aliases),
                **{key: version.tags[key] for key in told if key in version.tags},
            },
        )
    moves = champions.history(client, version.name if version else name)
    concern = [
        asdict(m) for m in moves if version and str(version.version) in (m.version, m.before)
    ]
    never = "it has never been champion" if moves else "nobody has been champion"
    chain.put("alias history", concern, never if version else "there is no version")


def put_serving(chain: Chain, end: End) -> None:
    """Add what serves the model: a bento, an image, the service that was asked."""
    if "at" in end.card:
        chain.put("service", {"at": end.card["at"]})
    bento = [end.card["bento"]] if "bento" in end.card else bentos_of(str(end.run_id))
    chain.put("bento", bento, "none in the local BentoML store serves it")
    noted = end.version.tags.get(IMAGE) if end.version else None
    image = noted or end.card.get("lineage", {}).get(IMAGE)
    chain.put(
        "image",
        image,
        "no digest is noted on the version: `pipeline.registry.lineage VERSION --image ...`",
    )


def pick(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Values whose keys begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in sorted(values.items()) if k.startswith(prefix)}


def known(tags: dict[str, str], *keys: str) -> dict[str, str]:
    """Tags of the lineage that say something."""
    values = {key: tags.get(f"lineage.{key}", "unknown") for key in keys}
    return {key: value for key, value in values.items() if value not in ("unknown", "none")}


def logged_dataset(client: MlflowClient, run: Run | None) -> dict[str, Any] | None:
    """Read the dataset's card, which was logged with the model."""
    model_id = runs.model_of(run) if run else None
    if model_id is None:
        return None
    with absent(), tempfile.TemporaryDirectory() as folder:
        where = client.get_logged_model(model_id).artifact_location
        source = f"{where}/extra_files/{paths.DATASET.name}"
        file = mlflow.artifacts.download_artifacts(source, dst_path=folder)
        card: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
        return card
    return None


def rejections(client: MlflowClient, run: Run | None) -> dict[str, str] | None:
    """Read which clips were left out of the dataset, and why."""
    if run is None:
        return None
    with absent(), tempfile.TemporaryDirectory() as folder:
        file = client.download_artifacts(run.info.run_id, paths.REJECTED.name, dst_path=folder)
        table = tables.read(Path(file))
        return dict(zip(table["path"], table["reason"], strict=True))
    return None


def text(chain: Chain) -> str:
    """Write a chain for people."""
    lines: list[str] = []
    for link, values in chain.links.items():
        lines.append(link)
        if isinstance(values, dict):
            lines += [f"  {key:24} {_words(value)}" for key, value in values.items()]
        elif isinstance(values, list):
            lines += [f"  {_words(value)}" for value in values]
        else:
            lines.append(f"  {values}")
    if chain.missing:
        lines.append("missing")
        lines += [f"  {link:24} {why}" for link, why in chain.missing.items()]
    return "\n".join(lines)


def _words(value: Any) -> str:
    if isinstance(value, dict) and "reason" in value:  # a move of the alias
        what = "back to version" if value["rollback"] else "version"
        before = f" after version {value['before']}" if value["before"] else ""
        when = value["at"][:19].replace("T", " ")
        return f"{when} {what} {value['version']}{before}, by {value['by']}: {value['reason']}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m pipeline lineage``."""
    parser.add_argument(
        "end",
        nargs="?",
        default=champions.CHAMPION,
        help="version, alias, run id, git revision, bento's tag or service's address",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--image", help="note on the version the digest of the image that serves it"
    )


def run(options: argparse.Namespace) -> str:
    """Run the command with its options."""
    return main(options.end, options.json, options.image)
