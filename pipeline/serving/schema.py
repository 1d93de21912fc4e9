"""Define the service's answers in JSON, and the exception for a request that it rejects."""

from typing import Any

from pydantic import BaseModel, Field

POINTS = 600
"""Pairs of values from which a waveform is drawn."""


class Window(BaseModel):
    """The model's prediction for one window of the clip."""

    start: float = Field(description="Seconds from the start of the clip.")
    end: float = Field(description="Seconds from the start of the clip.")
    label: str
    probability: float
    probabilities: dict[str, float]


class Spectrogram(BaseModel):
    """The features of the first window that the model analysed."""

    bands: int
    frames: int
    kind: str = Field(description="logmel, mfcc or stft.")
    low: float = Field(description="The value that byte 0 stands for, in dB unless kind is mfcc.")
    high: float = Field(
        description="The value that byte 255 stands for, in dB unless kind is mfcc."
    )
    seconds: float
    values: str = Field(
        description="Base64 of bands x frames bytes, row by row, lowest band first."
    )


class Picture(BaseModel):
    """Data for drawing the clip."""

    waveform: list[tuple[float, float]] = Field(
        description="Lowest and highest sample of each of at most"
        f" {POINTS} equally long stretches of the clip."
    )
    spectrogram: Spectrogram


class ModelName(BaseModel):
    """The model that made the prediction."""

    name: str
    version: str


class Classification(BaseModel):
    """The model's prediction for a clip."""

    label: str = Field(description="The most probable label; see `known`.")
    probability: float = Field(description="The probability of `label`.")
    known: bool = Field(
        description="Whether `probability` reaches the model's threshold. If it does not, the clip"
        " is probably none of the labels (out-of-distribution). For a request with windows:"
        " whether the highest probability in any window reaches the threshold."
    )
    probabilities: dict[str, float] = Field(
        description="The probability of each label, highest first: the mean over all windows."
    )
    seconds: float = Field(description="Seconds of sound that the model analysed.")
    duration: float = Field(description="Length of the clip in seconds.")
    model: ModelName
    windows: list[Window] | None = Field(
        None,
        description="Only if requested: one window every half window length. Windows without"
        " sound are left out.",
    )


class Answer(Classification):
    """The prediction for one clip."""

    picture: Picture | None = Field(None, description="Only if requested.")


class FileAnswer(Classification):
    """The prediction for one of several clips."""

    file: str = Field(description="The file name that was sent.")


class FileError(BaseModel):
    """The reason why one of several clips could not be classified."""

    file: str = Field(description="The file name that was sent.")
    error: str


class Answers(BaseModel):
    """One result per file, in the order in which the files were sent."""

    results: list[FileAnswer | FileError]


class Attribution(BaseModel):
    """The credit that the licence of a clip requires."""

    clip: str = Field(description="The clip's file name in the dataset; empty if not known.")
    source: str = Field(
        description="Address of the recording that the clip was cut from; empty if not known."
    )
    dataset: str = Field(description="The dataset's title.")
    homepage: str = Field(description="The dataset's homepage.")
    license: str
    changes: str = Field(description="How the example differs from the clip.")


class Example(BaseModel):
    """A clip to try."""

    label: str
    url: str
    attribution: Attribution | None = Field(description="Null if the licence requires none.")


class ModelCard(BaseModel):
    """The model that the service uses."""

    name: str
    version: str
    aliases: list[str]
    labels: list[str]
    threshold: float = Field(description="The lowest probability at which a label is `known`.")
    description: str
    metrics: dict[str, float] = Field(description="Measured on test clips not used in training.")
    dataset: dict[str, str | None]
    features: dict[str, Any]
    lineage: dict[str, str]
    limits: dict[str, float] = Field(description="The service's limits for a request.")
    examples: list[Example]


class Error(BaseModel):
    """An error."""

    error: str = Field(description="What went wrong, in one sentence.")


class RejectedError(Exception):
    """A request, or one file of it, that the service rejects.

    Parameters
    ----------
    status : int
        HTTP status of the answer.
    sentence : str
        The error message.
    reason : str
        One of :data:`pipeline.serving.monitoring.REASONS`.
    """

    def __init__(self, status: int, sentence: str, reason: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason
