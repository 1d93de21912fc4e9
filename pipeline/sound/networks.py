"""Build the networks, from feature arrays to class probabilities, in backend-neutral Keras 3."""

import numpy as np

from pipeline.backend import keras
from pipeline.errors import UserError
from pipeline.params import TrainParams

MOMENTUM = 0.9
"""Momentum of batch normalisation: its averages adapt in tens of steps, because a small dataset has
few steps."""

MODULATION_BANDS = 32
"""About how many bands get a modulation spectrum; rates need less detail than timbre."""

RATES = 24
"""Number of rates in a modulation spectrum: in five seconds, 0.4 to 43 Hz, three or four per
octave."""

LONGEST = 512
"""Largest number of frames in a modulation spectrum. A longer window gets the average of several
spectra."""

MOST_PARAMETERS = 2_000_000
"""Maximum number of parameters of a network or ensemble; few clips cannot train more."""

QUIET = 1e-3
"""Modulation power that is added before the logarithm, so that a band without modulation
has a finite value."""


def build(params: TrainParams, shape: tuple[int, int], classes: int) -> keras.Model:
    """Build the network that `params` names, not yet compiled.

    Parameters
    ----------
    params : TrainParams
        Only ``network``, ``width``, ``dropout`` and ``ensemble`` are used.
    shape : (bands, frames)
        Shape of one feature array.
    classes : int
        Number of labels.

    Returns
    -------
    keras.Model
        From features (array, shape (batch, bands, frames, 1), float32) to probabilities (array,
        shape (batch, classes), float32).

    Raises
    ------
    UserError
        When the feature array is too small for the network, or the ensemble is too large.
    """
    try:
        network = _build(params, shape, classes)
    except ValueError as error:
        raise UserError(
            f"train.network {params.network} needs larger features than {shape[0]} bands x"
            f" {shape[1]} frames: raise features.seconds or the number of bands."
        ) from error
    parameters = network.count_params() * params.ensemble
    if parameters > MOST_PARAMETERS:
        raise UserError(
            f"train.ensemble is {params.ensemble}, and that many networks have {parameters:,}"
            f" parameters, more than {MOST_PARAMETERS:,}: lower train.ensemble or train.width."
        )
    return network


def _build(params: TrainParams, shape: tuple[int, int], classes: int) -> keras.Model:
    if params.network == "fcn":
        return fcn(shape, classes, params.dropout)
    if params.network == "cnn":
        return cnn(shape, classes, params.dropout, params.width)
    return two_stream(shape, classes, params.dropout, params.width)


def two_stream(
    shape: tuple[int, int], classes: int, dropout: float, width: float = 1.0
) -> keras.Model:
    """Build our network, with one stream for the spectrogram and one for its modulation.

    The convolutions of :func:`cnn` see about a second at a time and pool over all positions. So
    they lose the rates of a rotor, a clock or an engine, and take rain for a helicopter. The second
    stream reads those rates from the modulation spectrum (:func:`modulation_spectrum`). There each
    position has a meaning, a band and a rate, so a dense layer reads the result of its convolutions
    instead of pooling over all positions.

    Parameters
    ----------
    shape : (bands, frames)
    classes : int
    dropout : float
        Share of the features of both streams that are dropped in training.
    width : float
        Factor for the number of filters in both streams.

    Returns
    -------
    keras.Model

    Raises
    ------
    ValueError
        When there are too few frames for a modulation spectrum, or for the convolutions.
    """
    inputs = keras.Input((*shape, 1), name="features")
    streams = [_spectrogram_stream(inputs, width), _modulation_stream(inputs, width)]
    return _classifier(inputs, keras.layers.Concatenate()(streams), classes, dropout, "two_stream")


def cnn(shape: tuple[int, int], classes: int, dropout: float, width: float = 1.0) -> keras.Model:
    """Build our small convolutional network for spectrograms: the first stream alone.

    Parameters
    ----------
    shape : (bands, frames)
    classes : int
    dropout : float
        Share of the pooled features that are dropped in training.
    width : float
        Factor for 16, 32, 64 and 128 filters.

    Returns
    -------
    keras.Model
        It has 100,698 parameters for ten classes and a width of 1.
    """
    inputs = keras.Input((*shape, 1), name="features")
    return _classifier(inputs, _spectrogram_stream(inputs, width), classes, dropout, "cnn")


def _spectrogram_stream(x: keras.KerasTensor, width: float) -> keras.KerasTensor:
    """Build four convolutions over pairs of frames, pooled over time and frequency.

    Frames that are short enough for a rotor's rate are shorter than these convolutions need, so
    pairs are averaged first. Pooling comes before normalisation: the maximum is the same unless
    the scale is negative, and with a quarter of the values a training step is a quarter faster. The
    result is the average and the maximum side by side: the average responds to steady sounds, the
    maximum to short events.
    """
    first, *others = _filters(width, 16, 32, 64, 128)
    x = keras.layers.AveragePooling2D((1, 2))(x)
    # The normalisation has an offset of its own, so the convolutions need no bias.
    x = keras.layers.Conv2D(first, 5, strides=2, padding="same", use_bias=False)(x)
    for filters in others:
        x = _normalised(keras.layers.MaxPooling2D(2, padding="same")(x))
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
    x = _normalised(x)
    return keras.layers.Concatenate()(
        [keras.layers.GlobalAveragePooling2D()(x), keras.layers.GlobalMaxPooling2D()(x)]
    )


def _modulation_stream(x: keras.KerasTensor, width: float) -> keras.KerasTensor:
    """Build two convolutions over bands and rates, and a dense layer that keeps positions apart."""
    x = keras.layers.BatchNormalization(momentum=MOMENTUM)(modulation_spectrum(x))
    for filters in _filters(width, 16, 32):
        x = _normalised(keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x))
        x = keras.layers.MaxPooling2D(2, padding="same")(x)
    # About 1,500 features, more than a small dataset has clips, so half are always dropped.
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    return _normalised(keras.layers.Dense(64, use_bias=False)(x))


def modulation_spectrum(x: keras.KerasTensor) -> keras.KerasTensor:
    """Compute how much the level of each band goes up and down, at each of several rates.

    For each band: subtract the mean over the window, apply a Hann window, take the power spectrum,
    sum it in triangles that are evenly spaced on a logarithmic axis from two cycles per window to
    half a cycle per frame, and take the logarithm. These statistics distinguish textures such as
    rain, fire and engines (McDermott and Simoncelli, "Sound texture perception via statistics of
    the auditory periphery", Neuron 71, 2011). The transform is two products with constant matrices,
    so every backend and LiteRT can compute it, and a saved network needs no code of ours.

    The matrices grow with the square of the length. So a window of more than 512 frames is cut into
    equal pieces whose power is averaged (Welch, "The use of fast Fourier transform for the
    estimation of power spectra", 1967).

    Parameters
    ----------
    x : KerasTensor, shape (batch, bands, frames, 1)

    Returns
    -------
    KerasTensor
        Shape (batch, bands, rates, 1). Neighbouring bands are averaged so that about 32 remain.

    Raises
    ------
    ValueError
        When there are too few frames.
    """
    pool = max(1, round(x.shape[1] / MODULATION_BANDS))
    x = keras.layers.AveragePooling2D((pool, 1))(x)
    bands, frames = x.shape[1:3]
    pieces = -(-frames // LONGEST)
    if pieces > 1:
        x = keras.layers.Cropping2D(((0, 0), (0, frames % pieces)))(x)
    length = frames // pieces
    fourier, triangles = modulation_weights(length)
    x = _constant(keras.layers.Reshape((bands * pieces, length))(x), fourier)
    power = _constant(keras.layers.Multiply()([x, x]), triangles)
    if pieces > 1:
        power = keras.layers.Reshape((bands, pieces, RATES))(power)
        power = keras.layers.AveragePooling2D((1, pieces))(power)
    return keras.layers.Reshape((bands, RATES, 1))(keras.ops.log(power + QUIET))


def modulation_weights(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the matrices of :func:`modulation_spectrum`.

    Parameters
    ----------
    frames : int
        Length of the window.

    Returns
    -------
    fourier : array, shape (frames, 2 x frequencies), float32
        Cosines and sines. The squares of the products sum to the (Hann-weighted) variance.
    triangles : array, shape (2 x frequencies, rates), float32

    Raises
    ------
    ValueError
        When the window is too short for a modulation spectrum.
    """
    frequencies = np.arange(2, frames // 2 + 1) / frames
    if len(frequencies) < 2:
        raise ValueError(f"{frames} frames have no modulation spectrum")
    window = np.hanning(frames)
    phase = 2 * np.pi * np.outer(np.arange(frames), frequencies)
    fourier = np.hstack([np.cos(phase), np.sin(phase)]) * window[:, None]
    fourier -= fourier.mean(axis=0)  # so that a band's mean does not matter
    fourier /= np.sqrt(frames / 2 * (window**2).sum())
    centres = np.geomspace(frequencies[0], frequencies[-1], RATES)
    # Low triangles are closer together than the frequencies, so they reach to the next frequency.
    reach = np.maximum(np.log(centres[1] / centres[0]), np.log1p(1 / (frames * centres)))
    distance = np.abs(np.log(frequencies)[:, None] - np.log(centres))
    triangles = np.maximum(0, 1 - distance / reach)
    return fourier.astype(np.float32), np.vstack([triangles, triangles]).astype(np.float32)


def fcn(shape: tuple[int, int], classes: int, dropout: float) -> keras.Model:
    """Build the fully convolutional network of the original tutorial, the baseline to beat.

    Four unpadded 2 x 4 convolutions of 16, 32, 64 and 128 filters, max-pooling 2 x 3, 2 x 2 and
    2 x 2 between them, global average pooling, dropout.

    Parameters
    ----------
    shape : (bands, frames)
        In the original 39 x 174: 13 MFCCs with two derivatives over four seconds.
    classes : int
    dropout : float
        0.5 in the original.

    Returns
    -------
    keras.Model
        It has 87,674 parameters for ten classes, whatever the shape.
    """
    inputs = keras.Input((*shape, 1), name="features")
    x = keras.layers.Conv2D(16, (2, 4), activation="relu")(inputs)
    for filters, pool in ((32, (2, 3)), (64, (2, 2)), (128, (2, 2))):
        x = keras.layers.MaxPooling2D(pool)(x)
        x = keras.layers.Conv2D(filters, (2, 4), activation="relu")(x)
    return _classifier(inputs, keras.layers.GlobalAveragePooling2D()(x), classes, dropout, "fcn")


def average(networks: list[keras.Model]) -> keras.Model:
    """Join networks into one whose logits are the mean of their logits.

    The mean of several dense layers, each with its own features, equals one dense layer with all
    the features side by side. So the joined network is calibrated, exported and loaded like any
    other.

    Parameters
    ----------
    networks : list of keras.Model
        As :func:`build` returns them, for the same features and labels. The result shares their
        layers.

    Returns
    -------
    keras.Model
        Returns the geometric mean of their probabilities, scaled to sum to 1.
    """
    inputs = keras.Input(networks[0].input_shape[1:], name="features")
    ends = [network.layers[-1] for network in networks]
    parts = [
        keras.Model(network.inputs, end.input, name=f"member_{number}")(inputs)
        for number, (network, end) in enumerate(zip(networks, ends, strict=True), start=1)
    ]
    last = _last_layer(ends[0].units)
    joined = keras.Model(inputs, last(keras.layers.Concatenate()(parts)), name="ensemble")
    kernels, biases = zip(*(end.get_weights() for end in ends), strict=True)
    last.set_weights([np.vstack(kernels) / len(networks), np.mean(biases, axis=0)])
    return joined


def _classifier(
    inputs: keras.KerasTensor, x: keras.KerasTensor, classes: int, dropout: float, name: str
) -> keras.Model:
    x = keras.layers.Dropout(dropout)(x)
    return keras.Model(inputs, _last_layer(classes)(x), name=name)


def _last_layer(classes: int) -> keras.layers.Dense:
    return keras.layers.Dense(classes, activation="softmax", name="probabilities")


def _filters(width: float, *filters: int) -> list[int]:
    return [max(1, round(width * count)) for count in filters]


def _constant(x: keras.KerasTensor, weights: np.ndarray) -> keras.KerasTensor:
    """Multiply by a matrix that training does not change."""
    layer = keras.layers.Dense(weights.shape[1], use_bias=False, trainable=False)
    x = layer(x)
    layer.set_weights([weights])
    return x


def _normalised(x: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=MOMENTUM)(x))
