"""The networks: feature arrays in, class probabilities out, in backend-neutral Keras 3."""

from pipeline.backend import keras
from pipeline.errors import UserError
from pipeline.params import TrainParams


def build(params: TrainParams, shape: tuple[int, int], classes: int) -> keras.Model:
    """Build the network that `params` names, not yet compiled.

    Parameters
    ----------
    params : TrainParams
        Of which ``network``, ``width`` and ``dropout`` are read.
    shape : (bands, frames)
        Of one feature array.
    classes : int
        Number of labels.

    Returns
    -------
    keras.Model
        (batch, bands, frames, 1) float32 -> (batch, classes) float32 probabilities.

    Raises
    ------
    UserError
        When the feature array is too small for the network.
    """
    try:
        if params.network == "fcn":
            return fcn(shape, classes, params.dropout)
        return cnn(shape, classes, params.dropout, params.width)
    except ValueError as error:
        raise UserError(
            f"train.network {params.network} needs larger features than {shape[0]} bands x"
            f" {shape[1]} frames: raise features.seconds or the number of bands."
        ) from error


def cnn(shape: tuple[int, int], classes: int, dropout: float, width: float = 1.0) -> keras.Model:
    """Build our small convolutional network for spectrograms.

    Four convolutions, each but the last pooled before it is normalised: the maximum of a map is
    the same before and after, but for a negative scale, and a quarter of the values are left to
    work on, which makes a training step a quarter faster. Then the average and the maximum over
    time and frequency side by side: the average hears steady sounds, the maximum short events.

    Parameters
    ----------
    shape : (bands, frames)
    classes : int
    dropout : float
        Share of pooled features dropped in training.
    width : float
        Times 16, 32, 64 and 128 filters.

    Returns
    -------
    keras.Model
        With 100,698 parameters for ten classes and a width of 1.
    """
    first, *others = (max(1, round(width * filters)) for filters in (16, 32, 64, 128))
    inputs = keras.Input((*shape, 1), name="features")
    # The normalisation has an offset of its own, so the convolutions need no bias.
    x = keras.layers.Conv2D(first, 5, strides=2, padding="same", use_bias=False)(inputs)
    for filters in others:
        x = _normalised(keras.layers.MaxPooling2D(2, padding="same")(x))
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
    x = _normalised(x)
    x = keras.layers.Concatenate()(
        [keras.layers.GlobalAveragePooling2D()(x), keras.layers.GlobalMaxPooling2D()(x)]
    )
    x = keras.layers.Dropout(dropout)(x)
    return keras.Model(
        inputs,
        keras.layers.Dense(classes, activation="softmax", name="probabilities")(x),
        name="cnn",
    )


def fcn(shape: tuple[int, int], classes: int, dropout: float) -> keras.Model:
    """Build the ancestor's fully convolutional network, the baseline to beat.

    Four unpadded 2 x 4 convolutions of 16, 32, 64 and 128 filters, max-pooling 2 x 3, 2 x 2 and
    2 x 2 between them, global average pooling, dropout.

    Parameters
    ----------
    shape : (bands, frames)
        Its own are 39 x 174: 13 MFCCs with two derivatives over four seconds.
    classes : int
    dropout : float
        0.5 in the original.

    Returns
    -------
    keras.Model
        With 87,674 parameters for ten classes, whatever the shape.
    """
    inputs = keras.Input((*shape, 1), name="features")
    x = keras.layers.Conv2D(16, (2, 4), activation="relu")(inputs)
    for filters, pool in ((32, (2, 3)), (64, (2, 2)), (128, (2, 2))):
        x = keras.layers.MaxPooling2D(pool)(x)
        x = keras.layers.Conv2D(filters, (2, 4), activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(dropout)(x)
    return keras.Model(
        inputs,
        keras.layers.Dense(classes, activation="softmax", name="probabilities")(x),
        name="fcn",
    )


def _normalised(x: keras.KerasTensor) -> keras.KerasTensor:
    # The averages follow in tens of steps, not hundreds: a small dataset has few.
    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
