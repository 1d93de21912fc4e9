"""Read ``params.yaml`` once into strict, frozen models.

Every key is checked: one that is unknown, of the wrong type or out of range raises a
:class:`~pipeline.errors.UserError` that names it.
"""

import difflib
import itertools
import reprlib
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline import paths
from pipeline.errors import UserError
from pipeline.evidence import listed

DatasetName = Literal["foley", "esc10", "esc50", "urbansound8k", "folder"]
FeatureKind = Literal["logmel", "mfcc", "stft"]
Network = Literal["two_stream", "cnn", "fcn"]

NOT_SEARCHED = {
    "ensemble": "each trial trains one network",
    "epochs": "each trial trains for tune.epochs",
    "patience": "only tune.prune ends a trial early",
    "seed": "the best seed is the luckiest one on the validation fold",
}
"""Keys of ``train`` that cannot be searched, and why."""


class Section(BaseModel):
    """A section of ``params.yaml``: typed, without unknown keys, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FoleyParams(Section):
    """The built-in dataset, which is generated."""

    seed: int = Field(
        ge=0,
        description="seed of the generator; the same seed gives the same clips on every machine",
    )
    folds: int = Field(ge=3, le=10, description="number of folds")
    recordings: int = Field(ge=1, description="number of recordings per class and fold")
    slices: int = Field(ge=1, le=10, description="maximum number of clips cut from one recording")


class FolderParams(Section):
    """Your own recordings: one sub-folder per label."""

    folds: int = Field(
        ge=3, description="number of folds to make, if the folder does not define any"
    )
    group: str | None = Field(
        default=None,
        min_length=1,
        description="what clips share that must stay in one fold, whatever their label: `parent`"
        " (the name of the folder that a file is in), a column of `clips.csv` such as `speaker`, or"
        " a regular expression with one group that finds it in the path; `file`: nothing, each file"
        " is a recording; null: the recordings of `pattern` and `clips.csv`, or each file, and"
        " `download` warns if file names suggest otherwise",
    )
    pattern: str | None = Field(
        description="regular expression that finds properties of a clip in its path inside the"
        " folder, by groups named `label`, `recording`, `fold`, or as `group` says; null: the label"
        " is the first folder"
    )


class DatasetParams(Section):
    """Which clips to use, and where they come from."""

    name: DatasetName = Field(
        description="which dataset: `foley` is built in and generated, `folder` is your own"
        " recordings, the others are published"
    )
    source: str | None = Field(
        min_length=1,
        description="folder, archive or URL to read instead of the dataset's usual place; null:"
        " the usual place",
    )
    sha256: str | None = Field(
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 checksum of the archive at `source`; null: not checked",
    )
    max_rejected: float = Field(
        ge=0, le=1, description="stop if a larger share of the clips cannot be used"
    )
    foley: FoleyParams
    folder: FolderParams


class SpectrumParams(Section):
    """Short-time Fourier transform with a Hann window and centred frames."""

    n_fft: int = Field(
        ge=64, le=16384, description="length of a frame and of its window, in samples"
    )
    hop_length: int = Field(ge=16, description="distance from one frame to the next, in samples")

    @model_validator(mode="after")
    def _frames_touch(self) -> Self:
        if self.hop_length > self.n_fft:
            raise ValueError("hop_length must not be larger than n_fft")
        return self


class StftParams(SpectrumParams):
    """Power spectrum in decibels."""

    top_db: float = Field(
        gt=0, description="values further below the clip's peak are raised to this distance, in dB"
    )


class MelParams(StftParams):
    """Mel power spectrum in decibels."""

    n_mels: int = Field(ge=8, le=512, description="number of mel bands")
    fmin: float = Field(ge=0, description="lower end of the lowest band, in Hz")
    fmax: float | None = Field(
        gt=0, description="upper end of the highest band, in Hz; null: half the sample rate"
    )


class MfccParams(MelParams):
    """Cepstral coefficients of the mel spectrum, with their derivatives over time."""

    n_mfcc: int = Field(ge=2, description="number of cepstral coefficients")
    derivatives: int = Field(
        ge=0, le=2, description="derivatives to append: 0 none, 1 the first, 2 the first and second"
    )

    @model_validator(mode="after")
    def _enough_bands(self) -> Self:
        if self.n_mfcc > self.n_mels:
            raise ValueError("n_mfcc must not be larger than n_mels")
        return self


class FeatureParams(Section):
    """How a waveform becomes a feature array."""

    kind: FeatureKind = Field(
        description="log-mel spectrogram, MFCCs or STFT; the section of that name has its settings"
    )
    sample_rate: int = Field(
        ge=4000, le=192000, description="sample rate that clips are resampled to, in Hz"
    )
    seconds: float | None = Field(
        gt=0,
        le=60,
        description="length of a window; null: the length of the dataset's clips, and for `folder`"
        " a length that nine of ten clips do not exceed",
    )
    longer: Literal["cut", "split"] = Field(
        description="what happens to a clip longer than a window: `cut` keeps the first window,"
        " `split` makes several windows"
    )
    min_seconds: float = Field(
        ge=0,
        le=1,
        description="minimum length of a clip, in seconds; a shorter clip is left out of the"
        " dataset and not classified, and so is one whose sound is an impulse of less than a tenth"
        " of it",
    )
    standardise: bool = Field(
        description="scale each band to zero mean and unit standard deviation over the training"
        " folds"
    )
    logmel: MelParams
    mfcc: MfccParams
    stft: StftParams


class SplitParams(Section):
    """How the folds are divided into training, validation and test."""

    test_fold: int = Field(
        ge=1,
        description="the fold that results are reported for; the next fold (after the last one,"
        " the first) is for validation and the others are for training",
    )


class AugmentParams(Section):
    """Random changes to training clips, drawn again each time a clip is used. 0 turns one off."""

    shift: bool = Field(description="start each clip at a random point and wrap around")
    speed: float = Field(
        ge=0,
        le=1,
        description="maximum change of speed, which also changes the pitch; 0.25: up to 1.25 times"
        " as fast or as slow",
    )
    mix: float = Field(
        ge=0,
        le=1,
        description="share of the clips that are mixed with another clip; their labels are mixed in"
        " the same proportion",
    )
    equaliser: float = Field(
        ge=0,
        le=40,
        description="maximum boost or cut by a random filter, in dB, which imitates another"
        " microphone or room",
    )
    noise: float = Field(ge=0, le=1, description="share of the clips that get steady noise")
    time_mask: float = Field(
        ge=0, lt=1, description="maximum share of the frames that are silenced"
    )
    frequency_mask: float = Field(
        ge=0, lt=1, description="maximum share of the bands that are silenced"
    )
    gain: float = Field(ge=0, le=40, description="maximum change of loudness, in dB")


class TrainParams(Section):
    """The settings of a training run, which a search may vary."""

    network: Network = Field(
        description="`two_stream`; its first stream alone (`cnn`); or the small fully"
        " convolutional network of the original tutorial (`fcn`)"
    )
    width: float = Field(
        gt=0,
        le=3,
        description="multiplies the number of filters of `two_stream` or `cnn`",
    )
    ensemble: int = Field(
        ge=1,
        le=4,
        description="number of networks to train from different seeds and average into one",
    )
    seed: int = Field(
        ge=0,
        lt=2**32,
        description="seed of initial weights, order of clips, augmentation and dropout",
    )
    epochs: int = Field(ge=1, description="maximum number of passes over the training clips")
    patience: int | None = Field(
        ge=1,
        description="stop after this many epochs without a better validation log loss; null: never"
        " stop early",
    )
    batch_size: int = Field(ge=1, description="number of windows per step of the optimiser")
    learning_rate: float = Field(
        gt=0, le=1, description="learning rate of AdamW; with a schedule, its maximum"
    )
    schedule: Literal["constant", "cosine"] = Field(
        description="how the learning rate changes: `cosine` rises over the first 5 % of the steps"
        " and then falls to zero"
    )
    weight_decay: float = Field(
        ge=0,
        le=1,
        description="weight decay of AdamW, which is multiplied by the learning rate",
    )
    dropout: float = Field(
        ge=0,
        lt=1,
        description="share of the features before the last layer that are dropped in training",
    )
    label_smoothing: float = Field(
        ge=0, lt=1, description="share of the target probability that is spread over all labels"
    )
    balance: bool = Field(
        description="whether an epoch has equally many clips of every class: those of a small class"
        " repeatedly, those of a large class only in part; raises the recall of small classes"
    )
    augment: AugmentParams | None = Field(
        description="augmentation of the training clips; null: none"
    )

    @model_validator(mode="after")
    def _fcn_has_one_width(self) -> Self:
        if self.network == "fcn" and self.width != 1:
            raise ValueError(
                f"train.width must be 1 for train.network fcn, not {self.width}:"
                " the number of its filters is fixed"
            )
        return self


class Range(Section):
    """An interval to search, evenly or on a logarithmic scale."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError("low must be smaller than high")
        if self.log and self.low <= 0:
            raise ValueError("low must be above 0 on a log scale")
        return self


class Choices(Section):
    """Values to choose from in a search."""

    choices: Annotated[tuple[str | int | float | bool | None, ...], Field(strict=False)]

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.choices:
            raise ValueError("choices must not be empty")
        return self


def _range_or_choices(domain: Any) -> str:
    chosen = isinstance(domain, Choices) or (isinstance(domain, dict) and "choices" in domain)
    return "choices" if chosen else "range"


class TuneParams(Section):
    """The hyper-parameter search."""

    trials: int = Field(
        ge=0, description="number of trials; 0: no search, `train` is used unchanged"
    )
    epochs: int = Field(ge=1, description="epochs per trial; the final training has `train.epochs`")
    seed: int = Field(ge=0, lt=2**32, description="seed of the sampler")
    workers: int | None = Field(
        ge=1, description="number of trials that run at the same time; null: one per CPU"
    )
    timeout: float | None = Field(
        gt=0, description="start no trial after this many seconds; null: run all"
    )
    prune: bool = Field(
        description="end a trial early if it is worse than the median of the others"
    )
    warm_start: bool = Field(
        description="repeat the best trial of the last search on the same dataset and test fold, as"
        " one of the first trials"
    )
    parameters_within: float | None = Field(
        ge=0,
        description="also search for small networks, and choose the smallest one whose validation"
        " log loss is at most this share above the best; null: choose by log loss alone",
    )
    space: dict[
        str,
        Annotated[
            Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")],
            Discriminator(_range_or_choices),
        ],
    ] = Field(
        description="the keys of `train` to search, each with an interval or a list of choices; "
        + ", ".join(f"`{name}`" for name in NOT_SEARCHED)
        + " cannot be searched"
    )


class EvaluateParams(Section):
    """How the model is scored on the test fold."""

    bootstrap: int = Field(
        ge=100, description="number of resamples of the test recordings for the confidence interval"
    )
    confidence: float = Field(
        gt=0.5, lt=1, description="level of the confidence interval of the accuracy"
    )
    coverage: float = Field(
        gt=0,
        le=1,
        description="share of the validation clips that get a label; this sets the threshold below"
        " which a prediction counts as unknown",
    )
    seed: int = Field(ge=0, lt=2**32, description="seed of the resampling")


class CrossvalParams(Section):
    """Cross-validation, with ``dvc repro crossval/dvc.yaml``: each fold is the test fold once."""

    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(strict=False, min_length=1)
    ] = Field(description="seeds; each fold is trained once per seed")
    validate_: bool = Field(
        alias="validate",
        description="whether the fold after the test fold chooses the epoch; if not, it trains too,"
        " and the last epoch counts",
    )
    workers: int | None = Field(
        ge=1, description="number of trainings that run at the same time; null: one per CPU"
    )

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds must differ")
        return self


class RegisterParams(Section):
    """How a model is registered, and when it becomes champion."""

    name: str | None = Field(
        description="name of the registered model; null: the dataset's name and `-classifier`"
    )
    significance: float = Field(
        gt=0,
        lt=1,
        description="maximum p-value at which a better candidate becomes champion, in a two-sided"
        " paired permutation test over recordings; a candidate that is only as good as"
        " the champion is promoted in at most half of this share of cases (0.05: 2.5 %)",
    )
    min_gain: float = Field(
        ge=0, lt=1, description="minimum gain in accuracy at which a candidate becomes champion"
    )
    on_incomparable: Literal["keep", "replace", "fail"] = Field(
        description="what to do if the champion cannot be compared with the candidate because"
        " data, labels or test fold differ: keep the champion, replace it, or fail"
    )

    @field_validator("name")
    @classmethod
    def _name_of_a_model(cls, name: str | None) -> str | None:
        if name is not None:
            if not name.strip(". ") or name != name.strip() or not name.isprintable():
                raise ValueError("a name needs letters or digits and no spaces at its ends")
            if forbidden := sorted(set(name) & set("/:'\"`")):
                raise ValueError(f"a name must not contain {' '.join(forbidden)}")
        return name


class Params(Section):
    """All of ``params.yaml``. Each section is named after the stage that reads it."""

    dataset: DatasetParams
    features: FeatureParams
    split: SplitParams
    train: TrainParams
    tune: TuneParams
    evaluate: EvaluateParams
    crossval: CrossvalParams
    register_: RegisterParams = Field(alias="register")

    @model_validator(mode="after")
    def _patience_needs_a_fold(self) -> Self:
        if self.train.patience and not self.crossval.validate_:
            raise ValueError(
                "train.patience needs a validation fold: set it to null, or set"
                " crossval.validate to true"
            )
        return self

    @model_validator(mode="after")
    def _space_is_trainable(self) -> Self:
        for name, domain in self.tune.space.items():
            _check_searchable(name)
            for value in _corners(domain):
                try:
                    with_values(self.train, {name: value})
                except _ConflictError:
                    pass  # the other key may be searched too: see the next check
                except UserError as error:
                    raise ValueError(
                        f"tune.space.{name} contains {_yaml(value)}: {error}"
                    ) from None
        return self

    @model_validator(mode="after")
    def _space_has_no_conflict(self) -> Self:
        corners = {name: _corners(domain) for name, domain in self.tune.space.items()}
        first = {name: values[0] for name, values in corners.items()}
        # No rule concerns more than two keys, so the others stay at their first value.
        for names in itertools.combinations(corners, min(2, len(corners))):
            for values in itertools.product(*(corners[name] for name in names)):
                together = first | dict(zip(names, values, strict=True))
                refusal = _refusal(self.train, together)
                if refusal is None:
                    continue
                blamed = dict(together)
                for name in together:
                    fewer = {key: value for key, value in blamed.items() if key != name}
                    if _refusal(self.train, fewer) == refusal:
                        blamed = fewer
                named = " with ".join(f"{key} {_yaml(value)}" for key, value in blamed.items())
                raise ValueError(f"tune.space allows {named}: {refusal}")
        return self


class _ConflictError(UserError):
    """Values that are valid one by one, but not together."""


def _check_searchable(name: str) -> None:
    """Raise ValueError unless `name` is a key of ``train`` that a search can vary."""
    annotation = _annotation(name)
    if annotation is None:
        raise ValueError(f"tune.space.{name} is not a key of `train`")
    if name in NOT_SEARCHED:
        raise ValueError(
            f"tune.space.{name} cannot be searched, because {NOT_SEARCHED[name]}: set train.{name}"
        )
    for section in _sections(annotation):
        raise ValueError(
            f"tune.space.{name} is a section of `train`: search its keys,"
            f" such as {name}.{next(iter(section.model_fields))}"
        )


def _corners(domain: Range | Choices) -> tuple[Any, ...]:
    """Return values that stand for all that a search of `domain` may try."""
    return domain.choices if isinstance(domain, Choices) else (domain.low, domain.high)


def _refusal(train: TrainParams, values: dict[str, Any]) -> str | None:
    """Return why `values` are not valid for `train`; None if they are."""
    try:
        with_values(train, values)
    except UserError as error:
        return str(error)
    return None


def with_values(train: TrainParams, values: dict[str, Any]) -> TrainParams:
    """Replace some training parameters, and check the result like ``params.yaml``.

    Parameters
    ----------
    train : TrainParams
        The parameters to change.
    values : dict
        New values by key of `train`; nested keys have dots. For an integer key, a whole float
        such as 32.0 is accepted.

    Returns
    -------
    TrainParams

    Raises
    ------
    UserError
        When a key is unknown, or a value has the wrong type or is out of range.
    """
    merged = train.model_dump()
    for name, value in values.items():
        *parents, last = name.split(".")
        section: Any = merged
        for parent in parents:
            section = section.get(parent)
            if not isinstance(section, dict):
                raise UserError(f"{name} cannot be set: train.{parent} is {_yaml(section)}.")
        whole = isinstance(value, float) and value.is_integer() and is_integer(name)
        section[last] = int(value) if whole else value
    try:
        return TrainParams.model_validate(merged)
    except ValidationError as error:
        kind = UserError if error.errors()[0]["loc"] else _ConflictError
        raise kind(_sentence(error)) from None


def value_of(train: TrainParams, name: str) -> Any:
    """Return the value of the dotted key `name` of `train`; None if a section above it is null."""
    value: Any = train
    for key in name.split("."):
        value = getattr(value, key, None)
    return value


def is_integer(name: str) -> bool:
    """Whether the key `name` of ``train`` takes whole numbers."""
    annotation = _annotation(name)
    return int in (get_args(annotation) or (annotation,))


def _annotation(name: str) -> Any:
    """Return the type of the dotted key `name` of ``train``; None if it does not exist."""
    model: Any = TrainParams
    for key in name.split("."):
        sections = _sections(model)
        if not sections or key not in sections[0].model_fields:
            return None
        model = sections[0].model_fields[key].annotation
    return model


def _sections(annotation: Any) -> list[type[Section]]:
    """Return the sections that a key of this type may hold."""
    return [one for one in (annotation, *get_args(annotation)) if hasattr(one, "model_fields")]


def load(path: Path = paths.PARAMS) -> Params:
    """Read and check ``params.yaml``.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Params

    Raises
    ------
    UserError
        When the file is missing, is not YAML, or has a wrong key or value.
    """
    try:
        values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run this in the repository's root folder.") from None
    except (YAMLError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {_sentence(error)}") from None


def _sentence(error: ValidationError) -> str:
    """Describe one problem in one sentence that names the key.

    An unknown key comes first: pydantic also reports the key that was meant, as missing.
    """
    problems = error.errors()
    problem = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
    keys = _keys(problem["loc"])
    name = ".".join(keys)
    kind = problem["type"]
    if kind == "missing":
        missing = [".".join(_keys(one["loc"])) for one in problems if one["type"] == "missing"]
        return f"{listed(missing, len(missing))} {'is' if len(missing) == 1 else 'are'} missing."
    if kind == "extra_forbidden":
        lacking = {".".join(_keys(one["loc"])) for one in problems if one["type"] == "missing"}
        meant = _meant(keys, lacking)
        return f"{name} is not a known key{f': did you mean {meant}?' if meant else '.'}"
    message = problem["msg"].removeprefix("Value error, ").removesuffix(".")
    if kind in IN_YAML:
        message = IN_YAML[kind].format(**problem.get("ctx", {}))
    if len(keys) < len(problem["loc"]) and problem["loc"][-1] in SCALARS:
        message = "Input should be text, a number, true, false or null"
    if not name:
        return f"{message}."
    if isinstance(problem["input"], dict) and kind == "value_error":  # keys that conflict
        return f"{name}: {message}."
    return f"{name} is {_yaml(problem['input'])}: {message[:1].lower()}{message[1:]}."


def _meant(keys: list[str], missing: set[str]) -> str | None:
    """Return the known key that an unknown one most likely stands for; None if none is like it.

    The nearest key of the same section comes first, one that is missing if possible, and then a key
    of the same name in another section.
    """
    *parents, last = keys
    siblings = [".".join([*parents, key]) for key in _known_keys(parents)]
    for candidates in ([key for key in siblings if key in missing], siblings):
        by_name = {key.rpartition(".")[2]: key for key in candidates}
        near = difflib.get_close_matches(last, by_name, n=1)
        if near:
            return by_name[near[0]]
    return next((key for key in _all_keys(Params) if key.rpartition(".")[2] == last), None)


IN_YAML = {
    "tuple_type": "Input should be a list",
    "too_short": "List should have at least {min_length} item",
    "dict_type": "Input should be a mapping",
    "model_type": "Input should be a mapping",
    "bool_type": "Input should be true or false",
}
"""Messages in YAML's terms, by pydantic's error type; pydantic's own use Python's terms."""

SCALARS = ("str", "int", "float", "bool")
"""Names of the members of a union, which pydantic adds to the key."""


def _keys(where: tuple[int | str, ...]) -> list[str]:
    """Turn pydantic's location of a problem into the keys of the file."""
    keys = [*where]
    if keys[:2] == ["tune", "space"] and len(keys) > 3:
        del keys[3]  # whether it is a Range or Choices
    if len(keys) > 1 and isinstance(keys[-2], int) and keys[-1] in SCALARS:
        del keys[-1]  # the type of an item of a list is not a key
    return [str(key) for key in keys]


class _Yaml(reprlib.Repr):
    """Shows values as in YAML, and only the beginning of long ones."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80

    def repr1(self, x: Any, level: int) -> str:
        if x is None:
            return "null"
        if isinstance(x, bool):
            return str(x).lower()
        return str(x) if isinstance(x, date) else super().repr1(x, level)


_yaml = _Yaml().repr


def _known_keys(parents: list[str]) -> list[str]:
    """Return the keys of a section; none where the section does not exist."""
    model: type[BaseModel] = Params
    for key in parents:
        by_alias = {f.alias or k: f for k, f in model.model_fields.items()}
        sections = _sections(by_alias[key].annotation) if key in by_alias else []
        if not sections:
            return []
        model = sections[0]
    return [f.alias or k for k, f in model.model_fields.items()]


def _all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        yield key
        for section in _sections(field.annotation):
            yield from _all_keys(section, f"{key}.")
