"""Which registered model the settings stand for, and what the closing lines call served."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline import params, paths, tables
from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.registry import champions, names, package, references, served, versions
from pipeline.tracking import provenance, store

SETTINGS = params.load(Path(__file__).parents[1] / "params.yaml")


def settings(dataset: str, name: str | None = None) -> Params:
    """Return the settings for a dataset, with or without a name of the user's own."""
    return SETTINGS.model_copy(
        update={
            "dataset": SETTINGS.dataset.model_copy(update={"name": dataset}),
            "register_": SETTINGS.register_.model_copy(update={"name": name}),
        }
    )


@pytest.fixture
def client(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    shutil.copy(empty_store, tmp_path)
    shutil.copy(Path(__file__).parents[1] / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return store.connect()


def add(client: MlflowClient, name: str, dataset: str, **tags: str) -> str:
    """Add a version that was trained on a dataset; return its number."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    tags |= {provenance.DATASET_NAME: dataset}
    return str(client.create_model_version(name, source="/nowhere", tags=tags).version)


def test_every_dataset_has_a_registered_model_of_its_own(client: MlflowClient) -> None:
    assert names.configured(client, settings("foley")) == "foley-classifier"
    add(client, "foley-classifier", "foley")
    assert names.configured(client, settings("esc10")) == "esc10-classifier"
    assert names.configured(client, settings("folder")) == "folder-classifier"
    assert names.configured(client, settings("folder", "birds")) == "birds"


def test_a_store_with_the_earlier_name_is_continued_for_the_dataset_of_its_champion(
    client: MlflowClient,
) -> None:
    add(client, names.EARLIER, "foley")
    add(client, names.EARLIER, "esc10")
    champions.set_champion(client, names.EARLIER, "1", "first version")
    assert names.configured(client, settings("foley")) == names.EARLIER
    assert names.configured(client, settings("esc10")) == "esc10-classifier"
    assert names.configured(client, settings("foley", "birds")) == "birds"
    add(client, "foley-classifier", "foley")
    assert names.configured(client, settings("foley")) == "foley-classifier"


def test_without_a_champion_the_earlier_name_belongs_to_the_datasets_of_its_versions(
    client: MlflowClient,
) -> None:
    add(client, names.EARLIER, "foley")
    assert names.configured(client, settings("foley")) == names.EARLIER
    assert names.configured(client, settings("esc10")) == "esc10-classifier"


def test_the_webhook_knows_every_name_that_the_settings_can_stand_for() -> None:
    assert names.possible(settings("esc10")) == ("esc10-classifier", names.EARLIER)
    assert names.possible(settings("esc10", "birds")) == ("birds",)


def test_a_run_under_two_names_is_found_as_the_one_that_is_asked_for(client: MlflowClient) -> None:
    with store.run(store.experiment(client, "foley"), "train", {}) as run_id:
        pass
    for name in (names.EARLIER, names.EARLIER, "foley-classifier"):
        add(client, name, "foley")
    for name, number in ((names.EARLIER, 3), ("foley-classifier", 2)):
        version = client.create_model_version(name, source="/nowhere", run_id=run_id)
        assert int(version.version) == number
    for name in (names.EARLIER, "foley-classifier"):
        (found,) = references.resolve(client, name, run_id)
        assert found.version
        assert found.version.name == name


def test_a_deployment_of_another_model_than_that_of_the_settings_is_refused(
    client: MlflowClient,
) -> None:
    for name in ("foley-classifier", "esc10-classifier"):
        add(client, name, name.split("-")[0])
    message = "params.yaml names the registered model foley-classifier, not esc10-classifier"
    with pytest.raises(UserError, match=message):
        package.main("1", expected="esc10-classifier")


def registered(client: MlflowClient, name: str, number: str) -> dict[str, str]:
    """Write the stage's output; return the rows of the summary."""
    tables.write_json(paths.REGISTRATION, {"name": name, "version": int(number)})
    return dict(served.rows(client, settings("foley")))


def line(client: MlflowClient, name: str, number: str) -> str:
    version = client.get_model_version(name, number)
    return served.find(client, name, version).beside(number)


def test_the_closing_lines_say_which_version_is_served_and_why(client: MlflowClient) -> None:
    name = "foley-classifier"
    paths.REGISTRATION.parent.mkdir()
    add(client, name, "foley")
    rows = registered(client, name, "1")
    assert rows["make serve"] == "serves nothing: no version of foley-classifier is champion"
    assert "serves nothing" in line(client, name, "1")

    champions.set_champion(client, name, "1", "it is the first")
    assert line(client, name, "1") == "`make serve` serves it (it is the first)"
    assert registered(client, name, "1") == {
        "model": "foley-classifier version 1, alias champion",
        "try it": "make serve",
    }

    refused = {versions.AGAINST: "1", versions.DECISION: "other clips"}
    add(client, name, "foley", **refused)
    promotion = 'python -m pipeline promote 2 --reason "..."'
    assert line(client, name, "2") == (
        f"`make serve` serves version 1 (other clips) until you run `{promotion}`"
    )
    assert registered(client, name, "2") == {
        "model": "foley-classifier version 2, no alias",
        "make serve": "serves version 1: other clips",
        "serve this one": f"{promotion}, then make serve",
    }

    champions.set_champion(client, name, "2", "heard both")
    assert line(client, name, "2") == "`make serve` serves it (heard both)"
    champions.set_champion(client, name, "1", "deaf after all", rollback=True)
    assert "serves version 1 (deaf after all)" in line(client, name, "2")


def test_the_summary_and_the_package_say_if_params_yaml_names_another_model(
    client: MlflowClient,
) -> None:
    paths.REGISTRATION.parent.mkdir()
    for dataset in ("foley", "esc10"):
        add(client, f"{dataset}-classifier", dataset)
        champions.set_champion(client, f"{dataset}-classifier", "1", "it is the first")
    rows = registered(client, "esc10-classifier", "1")
    assert rows["model"] == "esc10-classifier version 1, alias champion"
    assert rows["make serve"] == (
        "serves version 1 of foley-classifier, the model that params.yaml names"
    )
    assert served.packaged(client, client.get_model_version("foley-classifier", "1")) == (
        "foley-classifier version 1, the champion (it is the first)",
        "; the model trained last is esc10-classifier version 1, but params.yaml names"
        " foley-classifier",
    )


def test_the_package_says_if_a_later_version_is_not_served(client: MlflowClient) -> None:
    name = "foley-classifier"
    paths.REGISTRATION.parent.mkdir()
    for _ in range(2):
        add(client, name, "foley", **{versions.AGAINST: "1", versions.DECISION: "other clips"})
    champions.set_champion(client, name, "1", "it is the first")
    registered(client, name, "2")
    assert served.packaged(client, client.get_model_version(name, "1")) == (
        "foley-classifier version 1, the champion (it is the first)",
        "; the model trained last is version 2 (other clips): `python -m pipeline promote 2"
        ' --reason "..."` makes it the champion',
    )
    begin, end = served.packaged(client, client.get_model_version(name, "2"))
    assert begin == "foley-classifier version 2, not the champion (that is version 1)"
    assert end == ""
