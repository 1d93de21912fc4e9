"""Train a network: features and parameters in, the model of the best epoch and its history out."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from pipeline.backend import keras
from pipeline.data.split import Split
from pipeline.errors import UserError
from pipeline.params import TrainParams
from pipeline.sound import augment, features, networks
from pipeline.sound.features import FeatureSpec, Rows
from pipeline.training.objective import BEST
from pipeline.training.random_streams import derived_seed, random_stream

WARM_UP = 0.05
"""Share of the steps over which a cosine schedule rises to its full learning rate."""

VALIDATION_BATCH = 32
"""Windows that are validated at a time; Keras' own choice for an array."""

AHEAD = 3
"""Batches that are made ahead of the training steps. Keras' own 10 take memory and no time off."""

Example = tuple[np.ndarray, np.ndarray]
"""A batch. Features: array, shape (windows, bands, frames, 1), float32, normalised; and targets:
array, shape (windows, classes), float32."""

Clips = tuple[Rows, np.ndarray]
"""Features in decibels, for augmentation; and one-hot targets: array, shape (windows, classes),
float32."""


@dataclass(frozen=True)
class Data:
    """The clips that train a network and those that choose its epoch, without the test fold."""

    train: Clips
    validation: Clips
    """Empty if no fold validates."""
    spec: FeatureSpec
    """With the statistics of the training folds."""


@dataclass(frozen=True)
class Fitted:
    """A trained network with the weights of its best epoch, or of its last if no fold validated."""

    model: keras.Model
    history: pd.DataFrame
    """One row per epoch: ``epoch`` from 1, and the losses and accuracies on the training folds and,
    if there is one, on the validation fold. An ensemble has the history of its first network."""
    best: pd.Series
    """The row of the history for the epoch whose weights the model has. For an ensemble, the
    validation figures are those of the averaged network."""


def prepare(
    array: np.ndarray, index: pd.DataFrame, spec: FeatureSpec, split: Split, labels: list[str]
) -> Data:
    """Compute the statistics of the training folds and encode labels; features stay on the disk.

    Parameters
    ----------
    array : array, shape (windows, bands, frames), float32
        As the featurize stage writes it, not normalised.
    index : DataFrame
        One row per window, in the order of `array`; only ``label`` is read.
    spec : FeatureSpec
    split : Split
    labels : list of str
        In the order of the network's outputs.

    Returns
    -------
    Data
    """
    if spec.standardise:
        spec = spec.with_statistics(*features.statistics(array, split.train))
    codes = index["label"].map({label: i for i, label in enumerate(labels)}).to_numpy()
    targets = np.eye(len(labels), dtype=np.float32)[codes]

    train, validation = (
        (Rows(np.asarray(array), rows), targets[rows]) for rows in (split.train, split.validation)
    )
    return Data(train, validation, spec)


def network_input(array: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """Return features in the form that the networks take.

    Parameters
    ----------
    array : array, shape (windows, bands, frames), float32
        As :func:`pipeline.sound.features.extract` makes them.
    spec : FeatureSpec
        With statistics if it standardises.

    Returns
    -------
    array, shape (windows, bands, frames, 1), float32
    """
    return features.normalise(array, spec)[..., np.newaxis]


def predict(
    network: keras.Model, clips: np.ndarray | Rows, spec: FeatureSpec, batch_size: int = 64
) -> np.ndarray:
    """Predict windows batch by batch, so that only some batches are in memory.

    Parameters
    ----------
    network : keras.Model
    clips : array or Rows, shape (windows, bands, frames), float32
        Not normalised.
    spec : FeatureSpec
        The network's own, with statistics if it standardises.
    batch_size : int
        The last digits of the result depend on it.

    Returns
    -------
    array, shape (windows, classes), float32
    """
    inputs = InOrder(clips, None, spec, batch_size)
    return np.asarray(network.predict(inputs, verbose=0))


def fit(
    data: Data,
    params: TrainParams,
    name: str,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> Fitted:
    """Train a network, or an ensemble that is averaged into one network.

    The same arguments on the same machine give the same weights.

    Parameters
    ----------
    data : Data
    params : TrainParams
    name : str
        Shown beside the progress bar.
    on_epoch : callable, optional
        Called after every epoch of the first network with its number, from 1, and its metrics. An
        exception that it raises ends the training.

    Returns
    -------
    Fitted
        With the weights of the epoch with the lowest validation log loss, or of the last epoch if
        no fold validates.

    Raises
    ------
    UserError
        When the features are too small for the network, or when the loss becomes NaN.
    """
    if params.ensemble == 1:
        return _fit_one(data, params, name, on_epoch)
    members = [
        _fit_one(
            data,
            params.model_copy(update={"seed": seed}),
            f"{name}, {number} of {params.ensemble}",
            on_epoch if number == 1 else None,
        )
        for number, seed in enumerate(seeds(params.seed, params.ensemble), start=1)
    ]
    network = networks.average([member.model for member in members])
    best = members[0].best
    clips, targets = data.validation
    if len(clips):
        # the network is not compiled, or an optimiser that never ran would be saved with it
        predictions = predict(network, clips, data.spec, VALIDATION_BATCH)
        log_loss = float(keras.metrics.CategoricalCrossentropy()(targets, predictions))
        accuracy = float(keras.metrics.CategoricalAccuracy()(targets, predictions))
        best = pd.Series({**best, BEST: log_loss, "val_accuracy": accuracy})
    return Fitted(network, members[0].history, best)


def seeds(seed: int, ensemble: int) -> list[int]:
    """Return a seed for each network of an ensemble; another seed or size gives other ones."""
    return [derived_seed(seed, "ensemble", ensemble, member) for member in range(ensemble)]


def _fit_one(
    data: Data,
    params: TrainParams,
    name: str,
    on_epoch: Callable[[int, dict[str, float]], None] | None,
) -> Fitted:
    keras.utils.clear_session()
    keras.utils.set_random_seed(params.seed)
    _deterministic()
    clips, targets = data.train
    _, bands, frames = clips.shape
    network = networks.build(params, (bands, frames), targets.shape[1])
    batches = Batches(data, params)
    steps = params.epochs * len(batches)
    network.compile(
        optimizer=keras.optimizers.AdamW(
            _learning_rate(params, steps), weight_decay=params.weight_decay
        ),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=params.label_smoothing),
        metrics=["accuracy", keras.metrics.CategoricalCrossentropy(name="log_loss")],
    )
    # With all variables created before the first step, the step is traced once instead of twice.
    # That saves about two seconds per training, and the weights are the same.
    network.optimizer.build(network.trainable_variables)
    network.compute_metrics(None, targets[:1], targets[:1])
    network.reset_metrics()
    progress = _Progress(name, params.epochs, on_epoch)
    callbacks: list[keras.callbacks.Callback] = [progress, keras.callbacks.TerminateOnNaN()]
    validates = len(data.validation[0]) > 0
    validation = InOrder(*data.validation, data.spec, VALIDATION_BATCH)
    if validates:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                monitor=BEST,
                mode="min",
                patience=params.patience or params.epochs,
                restore_best_weights=True,
            )
        )
    try:
        network.fit(
            batches,
            validation_data=validation if validates else None,
            epochs=params.epochs,
            shuffle=False,  # Batches shuffles the clips
            callbacks=callbacks,
            verbose=0,
        )
    finally:
        progress.bar.close()
    history = pd.DataFrame(progress.rows)
    losses = history[BEST if validates else "log_loss"].to_numpy()
    if not np.isfinite(losses).all():
        raise UserError(
            f"The loss of epoch {int((~np.isfinite(losses)).argmax()) + 1} is not a number: lower"
            " train.learning_rate."
        )
    best = int(losses.argmin()) if validates else -1
    return Fitted(network, history, history.iloc[best])


def balanced(codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the clips of an epoch so that all classes are equally frequent.

    Parameters
    ----------
    codes : array, shape (clips,), int
        The class of each clip.
    rng : Generator
        The same state gives the same clips.

    Returns
    -------
    array, shape (clips,), int
        Row numbers, in random order. The numbers of rows of two classes differ by at most one, and
        so do those of two clips of one class.
    """
    classes = rng.permutation(np.unique(codes))
    shares = np.resize(classes, codes.size)
    rows = np.empty(codes.size, np.intp)
    for code in classes:
        places, own = np.flatnonzero(shares == code), np.flatnonzero(codes == code)
        rounds = math.ceil(places.size / own.size)
        drawn = np.concatenate([rng.permutation(own) for _ in range(rounds)])
        rows[places] = drawn[: places.size]
    return rng.permutation(rows)


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # keras ships no types
    """The training clips in batches: in a new order, and augmented differently, in every epoch.

    With ``balance``, an epoch has as many clips as without, but those of a small class several
    times and those of a large class only in part.

    Every batch has its own random stream, so it does not matter which thread makes it, or when.

    Parameters
    ----------
    data : Data
    params : TrainParams
        Only ``seed``, ``batch_size``, ``balance`` and ``augment`` are read.
    """

    def __init__(self, data: Data, params: TrainParams) -> None:
        super().__init__(max_queue_size=AHEAD)
        self._clips, self._targets = data.train
        self._spec = data.spec
        self._params = params
        self._epoch = 0

    def __len__(self) -> int:
        return math.ceil(len(self._clips) / self._params.batch_size)

    def __getitem__(self, batch: int) -> Example:
        """Return one batch: features and targets."""
        size = self._params.batch_size
        seed, epoch = self._params.seed, self._epoch
        order = self._order(random_stream(seed, "shuffle", epoch))
        rows = order[batch * size : (batch + 1) * size]
        if not self._params.augment:
            clips, targets = self._clips[rows], self._targets[rows]
        else:
            rng = random_stream(seed, "augment", epoch, batch)
            partners = order if self._params.balance else None
            clips, targets = augment.examples(
                self._clips, self._targets, rows, self._spec, self._params.augment, rng, partners
            )
        return network_input(clips, self._spec), targets

    def on_epoch_end(self) -> None:
        """Switch to the next epoch."""
        self._epoch += 1

    def _order(self, rng: np.random.Generator) -> np.ndarray:
        if self._params.balance:
            return balanced(self._targets.argmax(axis=1), rng)
        return rng.permutation(len(self._clips))


class InOrder(keras.utils.PyDataset):  # type: ignore[misc]  # keras ships no types
    """Windows in batches, in their order, normalised one batch at a time.

    Parameters
    ----------
    clips : array or Rows, shape (windows, bands, frames), float32
    targets : array, shape (windows, classes), float32, or None
        None to predict.
    spec : FeatureSpec
    batch_size : int
    """

    def __init__(
        self,
        clips: np.ndarray | Rows,
        targets: np.ndarray | None,
        spec: FeatureSpec,
        batch_size: int,
    ) -> None:
        super().__init__(max_queue_size=AHEAD)
        self._clips, self._targets = clips, targets
        self._spec = spec
        self._size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._clips) / self._size)

    def __getitem__(self, batch: int) -> tuple[np.ndarray, ...]:
        """Return one batch: features, and targets if there are any."""
        rows = slice(batch * self._size, (batch + 1) * self._size)
        inputs = network_input(self._clips[rows], self._spec)
        return (inputs,) if self._targets is None else (inputs, self._targets[rows])


class _Progress(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Keeps the history, shows a progress bar, and calls the caller after every epoch."""

    def __init__(
        self, name: str, epochs: int, on_epoch: Callable[[int, dict[str, float]], None] | None
    ) -> None:
        super().__init__()
        self.bar = tqdm(total=epochs, desc=name, unit="epoch", leave=False, disable=None)
        self.rows: list[dict[str, float]] = []
        self._on_epoch = on_epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        metrics = {key: float(value) for key, value in (logs or {}).items()}
        self.rows.append({"epoch": epoch + 1, **metrics})
        side = "validation" if "val_accuracy" in metrics else "training"
        accuracy = metrics.get("val_accuracy", metrics["accuracy"])
        self.bar.set_postfix_str(f"{side} accuracy {accuracy:.3f}")
        self.bar.update()
        if self._on_epoch:
            self._on_epoch(epoch + 1, metrics)


def _learning_rate(
    params: TrainParams, steps: int
) -> float | keras.optimizers.schedules.CosineDecay:
    if params.schedule == "constant":
        return params.learning_rate
    warm_up = max(1, round(WARM_UP * steps))
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=params.learning_rate / warm_up,
        decay_steps=max(1, steps - warm_up),
        warmup_target=params.learning_rate,
        warmup_steps=warm_up,
    )


def _deterministic() -> None:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
