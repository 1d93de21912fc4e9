"""Say which version `make serve` serves, and why, for the closing lines of several commands."""

from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from pipeline import paths, tables
from pipeline.params import Params
from pipeline.registry import champions, names, versions
from pipeline.tracking import provenance, store


@dataclass(frozen=True)
class Served:
    """The champion of a registered model, which ``make serve`` serves."""

    name: str
    version: str | None
    """None if there is no champion."""
    why: str

    def beside(self, trained: str) -> str:
        """Say in one sentence what is served after version `trained` was registered."""
        if self.version == trained:
            return f"`make serve` serves it ({self.why})"
        what = f"version {self.version}" if self.version else "nothing"
        return f"`make serve` serves {what} ({self.why}) until you run `{promotion(trained)}`"


def find(client: MlflowClient, name: str, trained: ModelVersion | None = None) -> Served:
    """Find the champion, with the reason why it is champion or why `trained` is not.

    Parameters
    ----------
    client : MlflowClient
    name : str
        Name of the registered model.
    trained : ModelVersion, optional
        The version that was trained last.

    Returns
    -------
    Served
    """
    champion = champions.champion(client, name)
    if champion is None:
        return Served(name, None, f"no version of {name} is champion")
    number = str(champion.version)
    changes = champions.history(client, name)
    if trained and trained.tags.get(versions.AGAINST) == number:
        never_champion = all(change.version != str(trained.version) for change in changes)
        if never_champion and versions.DECISION in trained.tags:
            return Served(name, number, trained.tags[versions.DECISION])
    if not changes or changes[-1].version != number:
        return Served(name, number, "the alias was set without `promote`")
    return Served(name, number, changes[-1].reason)


def rows(client: MlflowClient, settings: Params) -> list[tuple[str, str]]:
    """Describe the version that was registered last, and what is served, for the summary.

    Returns
    -------
    list of tuple of str and str
        Titles and texts.
    """
    registration = tables.read_json(paths.REGISTRATION)
    name, number = registration["name"], str(registration["version"])
    version = store.if_exists(lambda: client.get_model_version(name, number))
    aliases = sorted(version.aliases) if version else []
    model = ("model", f"{name} version {number}, {_list(aliases)}")
    chosen = names.configured(client, settings)
    served = find(client, chosen, version if chosen == name else None)
    what = f"version {served.version}" if served.version else "nothing"
    if chosen != name:
        return [
            model,
            ("make serve", f"serves {what} of {chosen}, the model that {paths.PARAMS} names"),
        ]
    if served.version == number:
        return [model, ("try it", "make serve")]
    return [
        model,
        ("make serve", f"serves {what}: {served.why}"),
        ("serve this one", f"{promotion(number)}, then make serve"),
    ]


def packaged(client: MlflowClient, version: ModelVersion) -> tuple[str, str]:
    """Say why a version was packaged, and which one was trained last if that is another.

    Returns
    -------
    tuple of str and str
        For the beginning and for the end of the closing line.
    """
    name, number = version.name, str(version.version)
    last = tables.read_json(paths.REGISTRATION) if paths.REGISTRATION.exists() else None
    same_name = last and last["name"] == name
    trained = (
        store.if_exists(lambda: client.get_model_version(name, str(last["version"])))
        if last and same_name
        else None
    )
    served = find(client, name)
    role = "the champion" if served.version == number else "not the champion"
    why = served.why if served.version in (number, None) else f"that is version {served.version}"
    begin = f"{name} version {number}, {role} ({why})"
    if last is None or (same_name and str(last["version"]) == number):
        return begin, ""
    if same_name:
        why = find(client, name, trained).why
        return begin, (
            f"; the model trained last is version {last['version']}"
            f"{f' ({why})' if why != served.why else ''}:"
            f" `{promotion(last['version'])}` makes it the champion"
        )
    return begin, (
        f"; the model trained last is {last['name']} version {last['version']}, but"
        f" {paths.PARAMS} names {name}"
    )


def promotion(number: object) -> str:
    """Return the command that makes a version the champion."""
    return f'python -m pipeline promote {number} --reason "..."'


def kept_name(settings: Params, name: str) -> str:
    """Say why a model keeps the earlier name; empty if it does not."""
    if settings.register_.name or name != names.EARLIER:
        return ""
    return f"; the registry already had this dataset's models as {name}, so the name is kept"


def other_dataset(client: MlflowClient, name: str, dataset: str) -> str:
    """Say that the champion of a name is for another dataset; empty if it is not."""
    champion = champions.champion(client, name)
    held = champion.tags.get(provenance.DATASET_NAME) if champion else None
    if held in (None, dataset):
        return ""
    return (
        f"; the champion of {name} was trained on {held}: change register.name if models of"
        f" {dataset} should have a name of their own"
    )


def _list(aliases: list[str]) -> str:
    return f"alias {', '.join(aliases)}" if aliases else "no alias"
