"""Find the name of the registered model: one per dataset, unless ``register.name`` says otherwise.

Earlier releases registered the models of all datasets under one name. A store that has the models
of a dataset under it goes on using it for that dataset; nothing is renamed.
"""

from mlflow import MlflowClient

from pipeline.params import Params, RegisterParams
from pipeline.registry import champions
from pipeline.tracking import provenance

EARLIER = "sound-classifier"
"""The name that earlier releases used for every dataset."""


def default(dataset: str) -> str:
    """Return the name of a dataset's registered model if the user gives none.

    Examples
    --------
    >>> default("esc10")
    'esc10-classifier'
    """
    return f"{dataset}-classifier"


def possible(settings: Params) -> tuple[str, ...]:
    """Return the names that the settings can stand for, without asking a store."""
    chosen = settings.register_.name
    return (chosen,) if chosen else (default(settings.dataset.name), EARLIER)


def configured(client: MlflowClient, settings: Params) -> str:
    """Return the name that ``params.yaml`` stands for in a store."""
    return resolve(client, settings.register_, settings.dataset.name)


def resolve(client: MlflowClient, settings: RegisterParams, dataset: str) -> str:
    """Return the name under which a store has, or will have, the models of a dataset.

    Parameters
    ----------
    client : MlflowClient
    settings : RegisterParams
        ``name``, which always takes precedence.
    dataset : str
        Name of the dataset.

    Returns
    -------
    str
        ``register.name``; otherwise the dataset's own name, unless the store only has its models
        under the earlier name.
    """
    if settings.name:
        return settings.name
    name = default(dataset)
    if not _has_versions(client, f"name = '{name}'") and _earlier_has(client, dataset):
        return EARLIER
    return name


def _earlier_has(client: MlflowClient, dataset: str) -> bool:
    """Whether the earlier name belongs to a dataset: its champion does, or, without one, any."""
    champion = champions.champion(client, EARLIER)
    if champion:
        return bool(champion.tags.get(provenance.DATASET_NAME) == dataset)
    of_dataset = f"tags.`{provenance.DATASET_NAME}` = '{dataset}'"
    return _has_versions(client, f"name = '{EARLIER}' and {of_dataset}")


def _has_versions(client: MlflowClient, wanted: str) -> bool:
    return bool(client.search_model_versions(wanted, max_results=1))
