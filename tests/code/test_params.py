from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline import params
from pipeline.errors import UserError

SHIPPED = Path(__file__).parents[2] / "params.yaml"
PARAMS = Path(__file__).parents[1] / "params.yaml"


def changed(tmp_path: Path, **changes: Any) -> Path:
    """The tests' file with some dotted keys set to new values, or removed where None."""
    yaml = YAML()
    values = yaml.load(PARAMS.read_text())
    for key, value in changes.items():
        *parents, last = key.split("__")
        section = values
        for parent in parents:
            section = section[parent]
        section[last] = value
    path = tmp_path / "params.yaml"
    with path.open("w") as stream:
        yaml.dump(values, stream)
    return path


def test_the_shipped_file_is_valid_and_its_settings_are_immutable() -> None:
    settings = params.load(SHIPPED)
    with pytest.raises(ValueError, match="frozen"):
        settings.train.epochs = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dataset__nme": "esc10"}, "dataset.nme is not a known key: did you mean dataset.name?"),
        ({"trian": 1}, "trian is not a known key: did you mean train?"),
        ({"dataset__name": "urbansound"}, "dataset.name is 'urbansound'"),
        ({"train__epochs": 0}, "train.epochs is 0"),
        ({"train__epochs": "ten"}, "train.epochs is 'ten'"),
        ({"train__epochs": 2.5}, "train.epochs is 2.5"),
        ({"train__dropout": 1.0}, "train.dropout is 1.0"),
        ({"features__logmel__n_mels": 0}, "features.logmel.n_mels is 0"),
        ({"features__stft__hop_length": 4096}, "hop_length must not be larger than n_fft"),
        ({"features__mfcc__n_mfcc": 4000}, "n_mfcc must not be larger than n_mels"),
        (
            {"features__logmel__hop_length": 4096},
            "features.logmel: hop_length must not be larger than n_fft.",
        ),
        ({"features__logmel__top_db": float("inf")}, "features.logmel.top_db is inf"),
        ({"dataset__source": ""}, "dataset.source is ''"),
        ({"dataset__sha256": "abc"}, "dataset.sha256 is 'abc'"),
        ({"tune__space__speed": {"low": 1, "high": 2}}, "tune.space.speed is not a key of `train`"),
        ({"tune__space__dropout": {"low": 0.1, "high": 3.0}}, "tune.space.dropout contains 3.0"),
        ({"tune__space__dropout": {"low": 0.5, "high": 0.1}}, "low must be smaller than high"),
        ({"tune__space__dropout": {"choices": []}}, "choices must not be empty"),
        ({"tune__space__dropout": 3}, "tune.space.dropout is 3"),
        ({"train": None}, "train is null: input should be a mapping."),
        ({"train__epochs": True}, "train.epochs is true: "),
        ({"train__augment__shift": 1}, "train.augment.shift is 1: input should be true or false."),
        ({"crossval__seeds": []}, "crossval.seeds is []: list should have at least 1 item."),
        ({"crossval__seeds": 3}, "crossval.seeds is 3: input should be a list."),
        (
            {"tune__space__network": {"choices": ["cnn", ["fcn"]]}},
            "tune.space.network.choices.1 is ['fcn']: input should be text, a number, true, false",
        ),
        (
            {"tune__space__network": {"choices": 3}},
            "tune.space.network.choices is 3: input should be a list.",
        ),
        ({"tune__space__network": {"choices": [None]}}, "tune.space.network contains null: "),
    ],
)
def test_a_wrong_key_or_value_is_one_sentence_that_names_it(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as caught:
        params.load(changed(tmp_path, **change))
    assert said in str(caught.value)
    assert not str(caught.value).endswith("..")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "where", "instead"),
    [
        ("ensemble", {"choices": [1, 2]}, "each trial trains one network: set train.ensemble."),
        ("epochs", {"low": 2, "high": 9}, "each trial trains for tune.epochs: set train.epochs."),
        ("patience", {"choices": [None, 3]}, "set train.patience."),
        ("seed", {"low": 0, "high": 9}, "luckiest one on the validation fold: set train.seed."),
        ("augment", {"choices": [None]}, "search its keys, such as augment.shift."),
    ],
)
def test_a_search_over_a_key_that_no_trial_can_vary_is_refused(
    tmp_path: Path, name: str, where: dict[str, Any], instead: str
) -> None:
    with pytest.raises(UserError) as caught:
        params.load(changed(tmp_path, **{f"tune__space__{name}": where}))
    assert f"tune.space.{name} " in str(caught.value)
    assert str(caught.value).endswith(instead)


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        (
            {
                "tune__space__network": {"choices": ["cnn", "fcn"]},
                "tune__space__width": {"low": 0.5, "high": 2},
            },
            "network 'fcn' with width 0.5: train.width must be 1 for train.network fcn, not 0.5",
        ),
        (
            {
                "tune__space__network": {"choices": ["cnn", "fcn"]},
                "tune__space__width": {"low": 1, "high": 2},
            },
            "network 'fcn' with width 2.0: train.width must be 1 for train.network fcn, not 2.0",
        ),
        (
            {"tune__space__network": {"choices": ["cnn", "fcn"]}, "train__width": 2.0},
            "network 'fcn': train.width must be 1 for train.network fcn, not 2.0",
        ),
    ],
)
def test_a_search_that_could_combine_conflicting_values_is_refused_and_names_only_these(
    tmp_path: Path, change: dict[str, Any], allowed: str
) -> None:
    with pytest.raises(UserError) as caught:
        params.load(changed(tmp_path, **change))
    assert f": tune.space allows {allowed}: the number of its filters is fixed." in str(
        caught.value
    )


def test_a_conflict_with_a_value_of_train_that_is_searched_itself_is_allowed(
    tmp_path: Path,
) -> None:
    searched = {
        "tune__space__network": {"choices": ["cnn", "two_stream"]},
        "tune__space__width": {"low": 0.5, "high": 2},
    }
    params.load(changed(tmp_path, **searched, train__network="fcn"))
    width = {"choices": [1]}
    mixed = {"tune__space__network": {"choices": ["cnn", "fcn"]}, "tune__space__width": width}
    params.load(changed(tmp_path, **mixed, train__width=2.0))


@pytest.mark.parametrize(
    ("right", "wrong", "meant"),
    [
        ("features.sample_rate", "sample_rte", "features.sample_rate"),
        ("features", "feature", "features"),
        ("split", "spilt", "split"),
        ("register", "registry", "register"),
        ("features.logmel.fmax", "f_max", "features.logmel.fmax"),
        ("crossval.validate", "validat", "crossval.validate"),
        ("train.augment.time_mask", "timemask", "train.augment.time_mask"),
    ],
)
def test_a_misspelt_key_is_reported_as_unknown_with_the_right_name_not_as_another_one_missing(
    tmp_path: Path, right: str, wrong: str, meant: str
) -> None:
    values = YAML(typ="safe").load(PARAMS.read_text())
    *parents, last = right.split(".")
    section = values
    for parent in parents:
        section = section[parent]
    section[wrong] = section.pop(last)
    path = tmp_path / "params.yaml"
    YAML().dump(values, path)
    misspelt = ".".join([*parents, wrong])
    with pytest.raises(UserError) as caught:
        params.load(path)
    assert str(caught.value) == f"{path}: {misspelt} is not a known key: did you mean {meant}?"


def test_a_key_in_the_wrong_section_is_reported_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.n_mels is not .*: did you mean features\.logmel"):
        params.load(changed(tmp_path, train__n_mels=64))
    with pytest.raises(UserError, match=r"dataset\.zebra is not a known key\.$"):
        params.load(changed(tmp_path, dataset__zebra=1))


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "\ttrain: 1", "train: {", "null", "42"])
def test_a_file_that_is_not_a_mapping_is_one_sentence_that_names_it(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"params\.yaml"):
        params.load(path)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"params\.yaml is missing"):
        params.load(tmp_path / "params.yaml")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_parameters_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "params.yaml"
    path.write_bytes(data)
    with pytest.raises(UserError):
        params.load(path)


def test_searched_values_replace_those_of_train_and_are_checked() -> None:
    train = params.load(PARAMS).train
    assert params.with_values(train, {"batch_size": 32.0}).batch_size == 32
    with pytest.raises(UserError, match="dropout"):
        params.with_values(train, {"dropout": 1.5})
    with pytest.raises(UserError, match="epoch"):
        params.with_values(train, {"epoch": 3})


@pytest.mark.parametrize("name", [" ", "..", "", "birds ", "two\nlines", "a/b", "it's"])
def test_a_name_that_no_registry_takes_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"register\.name is .*: a name (needs|must not contain)"):
        params.load(changed(tmp_path, register__name=name))


def test_all_missing_keys_are_named_at_once(tmp_path: Path) -> None:
    values = YAML(typ="safe").load(PARAMS.read_text())
    del values["split"]["test_fold"], values["features"]["min_seconds"], values["register"]
    path = tmp_path / "params.yaml"
    YAML().dump(values, path)
    sentence = "features.min_seconds, split.test_fold and register are missing."
    with pytest.raises(UserError, match=sentence):
        params.load(path)
