"""``params.yaml``, read once into strict, frozen models.

Every key is checked: an unknown one, one of the wrong type or one out of range is a
:class:`~pipeline.errors.UserError` that names it.
"""

import difflib
import itertools
import reprlib
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
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline import paths
from pipeline.errors import UserError

DatasetName = Literal["foley", "esc10", "esc50", "urbansound8k", "folder"]
FeatureKind = Literal["logmel", "mfcc", "stft"]
Network = Literal["two_stream", "cnn", "fcn"]

NOT_SEARCHED = {
    "ensemble": "a trial trains one network",
    "epochs": "a trial has tune.epochs",
    "patience": "a trial ends early by tune.prune alone",
    "seed": "the best one is luck on the validation fold",
}
"""Keys of ``train`` that a search leaves alone, and why."""


class Section(BaseModel):
    """A section of ``params.yaml``: typed, without unknown keys, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FoleyParams(Section):
    """The embedded, generated dataset."""

    seed: int = Field(ge=0, description="of the generator: the same clips on every machine")
    folds: int = Field(ge=3, le=10, description="folds to generate")
    recordings: int = Field(ge=1, description="recordings of a class in a fold")
    slices: int = Field(ge=1, le=10, description="clips cut from a recording, at most")


class FolderParams(Section):
    """One's own recordings: one sub-folder a label."""

    folds: int = Field(ge=3, description="folds to make where the folder names none")
    pattern: str | None = Field(
        description="regular expression on the path inside the folder, with the named groups"
        " `recording` and, or, `fold`"
    )


class DatasetParams(Section):
    """Which clips, and where from."""

    name: DatasetName = Field(
        description="embedded and generated (foley), published, or your own (folder)"
    )
    source: str | None = Field(
        min_length=1,
        description="folder, archive or URL to read instead of the dataset's own; null: its own",
    )
    sha256: str | None = Field(
        pattern="^[0-9a-f]{64}$",
        description="checksum of the archive at `source`; null: not checked",
    )
    max_rejected: float = Field(
        ge=0, le=1, description="share of the clips that may be unusable; the stage stops at more"
    )
    foley: FoleyParams
    folder: FolderParams


class SpectrumParams(Section):
    """Short-time Fourier transform with a Hann window, frames centred."""

    n_fft: int = Field(
        ge=64, le=16384, description="length of the transform and of its window, in samples"
    )
    hop_length: int = Field(ge=16, description="samples from one frame to the next")

    @model_validator(mode="after")
    def _frames_touch(self) -> Self:
        if self.hop_length > self.n_fft:
            raise ValueError("hop_length must not be larger than n_fft")
        return self


class StftParams(SpectrumParams):
    """Power spectrum in decibels."""

    top_db: float = Field(gt=0, description="dB below the clip's peak where values are cut")


class MelParams(StftParams):
    """Mel power spectrum in decibels."""

    n_mels: int = Field(ge=8, le=512, description="mel bands")
    fmin: float = Field(ge=0, description="lower end of the bands, Hz")
    fmax: float | None = Field(
        gt=0, description="upper end of the bands, Hz; null: half the sample rate"
    )


class MfccParams(MelParams):
    """Cepstral coefficients of the mel spectrum, with their derivatives."""

    n_mfcc: int = Field(ge=2, description="cepstral coefficients")
    derivatives: int = Field(
        ge=0, le=2, description="how many are appended: 1 the first, 2 the second as well"
    )

    @model_validator(mode="after")
    def _enough_bands(self) -> Self:
        if self.n_mfcc > self.n_mels:
            raise ValueError("n_mfcc must not be larger than n_mels")
        return self


class FeatureParams(Section):
    """Waveform to feature array."""

    kind: FeatureKind = Field(
        description="log-mel spectrogram, MFCCs or STFT; its section has the rest"
    )
    sample_rate: int = Field(ge=4000, le=192000, description="Hz that clips are resampled to")
    seconds: float | None = Field(
        gt=0,
        le=60,
        description="length of the window; null: that of the dataset's clips, most of a folder's",
    )
    longer: Literal["cut", "split"] = Field(
        description="clips longer than the window: keep its first part, or make several of it"
    )
    standardise: bool = Field(
        description="each band to zero mean and unit deviation over the training folds"
    )
    logmel: MelParams
    mfcc: MfccParams
    stft: StftParams


class SplitParams(Section):
    """Which official fold is reported; the next one (cyclically) validates."""

    test_fold: int = Field(
        ge=1, description="the fold that is reported; the next one validates, the others train"
    )


class AugmentParams(Section):
    """What is done to training clips, anew every time one is seen; 0 leaves a thing out."""

    shift: bool = Field(description="start anywhere and go round")
    speed: float = Field(ge=0, le=1, description="at most so much faster, or slower by as much")
    mix: float = Field(ge=0, le=1, description="share that is mixed with another clip, labels too")
    equaliser: float = Field(ge=0, le=40, description="dB that a random filter adds or takes")
    noise: float = Field(ge=0, le=1, description="share that gets steady noise")
    time_mask: float = Field(ge=0, lt=1, description="share of the frames silenced, at most")
    frequency_mask: float = Field(ge=0, lt=1, description="share of the bands silenced, at most")
    gain: float = Field(ge=0, le=40, description="dB louder or quieter, at most")


class TrainParams(Section):
    """Everything that a training run is told, and so what a search may vary."""

    network: Network = Field(
        description="two_stream, its first stream alone (cnn), or the ancestor's (fcn)"
    )
    width: float = Field(
        gt=0,
        le=3,
        description="times the filters of `two_stream` or `cnn`",
    )
    ensemble: int = Field(
        ge=1, le=4, description="networks that are trained, each from another seed, and averaged"
    )
    seed: int = Field(ge=0, lt=2**32, description="of initial weights, order of clips and dropout")
    epochs: int = Field(ge=1, description="passes over the training clips, at most")
    patience: int | None = Field(
        ge=1, description="epochs without a better validation log loss before stopping; null: never"
    )
    batch_size: int = Field(ge=1, description="windows in a step of the optimiser")
    learning_rate: float = Field(gt=0, le=1, description="of AdamW, at the highest of the schedule")
    schedule: Literal["constant", "cosine"] = Field(
        description="of the learning rate; cosine: after a warm-up over 5 % of the steps"
    )
    weight_decay: float = Field(
        ge=0, le=1, description="of AdamW, times the learning rate in each step"
    )
    dropout: float = Field(ge=0, lt=1, description="share of pooled features dropped in training")
    label_smoothing: float = Field(
        ge=0, lt=1, description="share of the target spread over all labels"
    )
    augment: AugmentParams | None = Field(description="null: clips are trained on as they are")

    @model_validator(mode="after")
    def _the_ancestors_is_as_it_is(self) -> Self:
        if self.network == "fcn" and self.width != 1:
            raise ValueError(
                f"train.width is 1 for fcn, not {self.width}: it has the ancestor's filters"
            )
        return self


class Range(Section):
    """An interval to search."""

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
    """Values to choose from."""

    choices: Annotated[tuple[str | int | float | bool | None, ...], Field(strict=False)]

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.choices:
            raise ValueError("choices must not be empty")
        return self


def _range_or_choices(where: Any) -> str:
    chosen = isinstance(where, Choices) or (isinstance(where, dict) and "choices" in where)
    return "choices" if chosen else "range"


class TuneParams(Section):
    """The hyper-parameter search."""

    trials: int = Field(ge=0, description="how many; 0: no search, `train` is taken as it is")
    epochs: int = Field(ge=1, description="epochs of a trial; `train.epochs` is for the final run")
    seed: int = Field(ge=0, lt=2**32, description="of the sampler")
    workers: int | None = Field(ge=1, description="trials at a time; null: one a core")
    timeout: float | None = Field(
        gt=0, description="seconds after which no trial is begun; null: until all have run"
    )
    prune: bool = Field(description="end a trial early that is worse than the others' median")
    warm_start: bool = Field(description="try the best parameters of the last search first")
    parameters_within: float | None = Field(
        ge=0,
        description="search for few parameters too, and take the smallest network whose validation"
        " log loss is this share above the best at most; null: log loss alone counts",
    )
    space: dict[
        str,
        Annotated[
            Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")],
            Discriminator(_range_or_choices),
        ],
    ] = Field(
        description="keys of `train`, and where each is searched; not "
        + ", ".join(f"`{name}`" for name in NOT_SEARCHED)
    )


class EvaluateParams(Section):
    """The report on the test fold."""

    bootstrap: int = Field(
        ge=100, description="how often the test recordings are resampled for the interval"
    )
    confidence: float = Field(gt=0.5, lt=1, description="of the interval of the accuracy")
    coverage: float = Field(
        gt=0,
        le=1,
        description="share of the validation clips that get an answer; what is less sure than these"
        " is none of the labels",
    )
    seed: int = Field(ge=0, lt=2**32, description="of the resampling")


class CrossvalParams(Section):
    """Every official fold as the test fold once, apart from ``dvc repro``."""

    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(strict=False, min_length=1)
    ] = Field(description="every fold is trained once with each")
    validate_: bool = Field(
        alias="validate",
        description="whether the next fold chooses the epoch; if not, it trains too, and the last"
        " epoch counts",
    )
    workers: int | None = Field(ge=1, description="trainings at a time; null: one a core")

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds must differ")
        return self


class RegisterParams(Section):
    """The model registry."""

    name: str = Field(min_length=1, pattern=r"^[^/:'\"`]+$", description="of the registered model")
    significance: float = Field(
        gt=0,
        lt=1,
        description="largest p-value at which a better candidate becomes champion, in a two-sided"
        " paired permutation test over recordings; a candidate that is only as good as the champion"
        " is promoted in at most half as many cases (0.05: 2.5%)",
    )
    min_gain: float = Field(
        ge=0, lt=1, description="least gain in accuracy at which a candidate becomes champion"
    )
    on_incomparable: Literal["keep", "replace", "fail"] = Field(
        description="what happens to a champion that cannot be compared with the candidate"
    )


class Params(Section):
    """The whole of ``params.yaml``; a section is named after what reads it."""

    dataset: DatasetParams
    features: FeatureParams
    split: SplitParams
    train: TrainParams
    tune: TuneParams
    evaluate: EvaluateParams
    crossval: CrossvalParams
    register_: RegisterParams = Field(alias="register")

    @model_validator(mode="after")
    def _patience_has_a_fold(self) -> Self:
        if self.train.patience and not self.crossval.validate_:
            raise ValueError("train.patience needs crossval.validate: true, or null for itself")
        return self

    @model_validator(mode="after")
    def _space_is_trainable(self) -> Self:
        for name, where in self.tune.space.items():
            _check_searchable(name)
            for value in _corners(where):
                try:
                    with_values(self.train, {name: value})
                except _AtOddsError:
                    pass  # with a key that may be searched as well: see the next check
                except UserError as error:
                    raise ValueError(f"tune.space.{name} holds {_yaml(value)}: {error}") from None
        return self

    @model_validator(mode="after")
    def _space_holds_nothing_at_odds(self) -> Self:
        corners = {name: _corners(where) for name, where in self.tune.space.items()}
        first = {name: values[0] for name, values in corners.items()}
        # No rule is about more than two keys, so the others stay at their first corner.
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


class _AtOddsError(UserError):
    """Values that are right one by one, but not together."""


def _check_searchable(name: str) -> None:
    """Raise ValueError unless `name` is a key of ``train`` that a search can vary."""
    annotation = _annotation(name)
    if annotation is None:
        raise ValueError(f"tune.space.{name} is not a key of `train`")
    if name in NOT_SEARCHED:
        raise ValueError(
            f"tune.space.{name} cannot be searched, for {NOT_SEARCHED[name]}: set train.{name}"
        )
    for section in _sections(annotation):
        raise ValueError(
            f"tune.space.{name} is a section of `train`: search its keys,"
            f" such as {name}.{next(iter(section.model_fields))}"
        )


def _corners(where: Range | Choices) -> tuple[Any, ...]:
    """Values that stand for all that a search through `where` comes upon."""
    return where.choices if isinstance(where, Choices) else (where.low, where.high)


def _refusal(train: TrainParams, values: dict[str, Any]) -> str | None:
    """Why `train` cannot take `values`; None if it can."""
    try:
        with_values(train, values)
    except UserError as error:
        return str(error)
    return None


def with_values(train: TrainParams, values: dict[str, Any]) -> TrainParams:
    """Training parameters with some of them replaced, checked like ``params.yaml``.

    Parameters
    ----------
    train : TrainParams
        What to start from.
    values : dict
        Keys of `train`, dotted where they are nested, and their new values; a whole float is
        taken for an integer key.

    Returns
    -------
    TrainParams

    Raises
    ------
    UserError
        When there is no such key, or a value is of the wrong type or out of range.
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
        kind = UserError if error.errors()[0]["loc"] else _AtOddsError
        raise kind(_sentence(error)) from None


def value_of(train: TrainParams, name: str) -> Any:
    """Look up the dotted key `name` of `train`; None within a null."""
    value: Any = train
    for key in name.split("."):
        value = getattr(value, key, None)
    return value


def is_integer(name: str) -> bool:
    """Whether the key `name` of ``train`` takes whole numbers."""
    annotation = _annotation(name)
    return int in (get_args(annotation) or (annotation,))


def _annotation(name: str) -> Any:
    """Type of the key `name` of ``train``, dotted where it is nested; None if there is none."""
    model: Any = TrainParams
    for key in name.split("."):
        sections = _sections(model)
        if not sections or key not in sections[0].model_fields:
            return None
        model = sections[0].model_fields[key].annotation
    return model


def _sections(annotation: Any) -> list[type[Section]]:
    """Sections that a key with this type may hold."""
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
        When the file is missing, is not YAML, or holds a wrong key or value.
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
    """Put the first problem into one sentence that names the key."""
    problem = error.errors()[0]
    keys = _keys(problem["loc"])
    name = ".".join(keys)
    kind = problem["type"]
    if kind == "missing":
        return f"{name} is missing."
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(keys[-1], _known_keys(keys[:-1]), n=1)
        hint = f": did you mean {'.'.join([*keys[:-1], near[0]])}?" if near else "."
        return f"{name} is not a known key{hint}"
    message = problem["msg"].removeprefix("Value error, ").removesuffix(".")
    if kind in IN_YAML:
        message = IN_YAML[kind].format(**problem.get("ctx", {}))
    if len(keys) < len(problem["loc"]) and problem["loc"][-1] in SCALARS:
        message = "Input should be text, a number, true, false or null"
    if not name:
        return f"{message}."
    if (
        isinstance(problem["input"], dict) and kind == "value_error"
    ):  # keys at odds, one by one right
        return f"{name}: {message}."
    return f"{name} is {_yaml(problem['input'])}: {message[:1].lower()}{message[1:]}."


IN_YAML = {
    "tuple_type": "Input should be a list",
    "too_short": "List should have at least {min_length} item",
    "dict_type": "Input should be a mapping",
    "model_type": "Input should be a mapping",
    "bool_type": "Input should be true or false",
}
"""What pydantic says in Python's words, by the type of its error."""

SCALARS = ("str", "int", "float", "bool")
"""What pydantic calls the members of a union of them."""


def _keys(where: tuple[int | str, ...]) -> list[str]:
    """Keys as the file has them, of where pydantic found a problem."""
    keys = [*where]
    if keys[:2] == ["tune", "space"] and len(keys) > 3:
        del keys[3]  # which of Range and Choices it took the value for
    if len(keys) > 1 and isinstance(keys[-2], int) and keys[-1] in SCALARS:
        del keys[-1]  # an item of a list is not a section, so this is no key
    return [str(key) for key in keys]


class _Yaml(reprlib.Repr):
    """Shows values as YAML has them, and of long ones the beginning."""

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
    model: type[BaseModel] = Params
    for key in parents:
        by_alias = {f.alias or k: f for k, f in model.model_fields.items()}
        annotation = by_alias[key].annotation if key in by_alias else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return [f.alias or k for k, f in model.model_fields.items()]
