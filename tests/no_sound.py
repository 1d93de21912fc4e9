"""Clips that hold no sound, with what is said about them, and clips that look like them but do."""

import io

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 44_100

Wave = NDArray[np.float64]

NOISE = np.random.default_rng(0).normal(0, 0.1, 2 * RATE)
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)


def impulse(at: int = RATE) -> Wave:
    wave = np.zeros(2 * RATE)
    wave[at] = 0.9
    return wave


NO_SOUND: dict[str, tuple[Wave, str]] = {
    "digital silence": (np.zeros(2 * RATE), "The clip is silent."),
    "the last bit": (NOISE * 1e-4, "The clip is silent."),
    "opposite channels": (
        np.stack([TONE, -TONE], axis=1),
        "The clip is silent in mono, because its channels cancel each other.",
    ),
    "nearly opposite channels": (
        np.stack([TONE, -0.9999 * TONE], axis=1),
        "The clip is silent in mono, because its channels cancel each other.",
    ),
    "constant offset": (
        np.full(2 * RATE, 0.3),
        "The clip contains only a constant offset.",
    ),
    "offset left of opposite channels": (
        np.stack([0.3 + TONE / 2, 0.3 - TONE / 2], axis=1),
        "The clip contains only a constant offset.",
    ),
    "one sample": (
        np.full(1, 0.5),
        "The clip is 0.023 ms long, and the minimum is 50 ms.",
    ),
    "10 ms": (TONE[:441], "The clip is 10 ms long, and the minimum is 50 ms."),
    "impulse": (impulse(), "The clip is silent except for an impulse of 0.023 ms."),
    "impulse on an offset": (
        0.1 + impulse() / 2,
        "The clip is silent except for an impulse of 0.023 ms.",
    ),
    "impulse at the start": (impulse(0), "The clip is silent except for an impulse of 0.023 ms."),
}

SOUND: dict[str, Wave] = {
    "white noise": NOISE,
    "tone": TONE,
    "tone on an offset": 0.4 + TONE / 2,
    "50 ms": TONE[: RATE // 20],
    "20 ms in silence": np.concatenate([np.zeros(RATE), TONE[:882], np.zeros(RATE)]),
    "one channel": np.stack([TONE, np.zeros_like(TONE)], axis=1),
    "quiet": TONE * 1e-3,
    "clicks": np.where(np.arange(2 * RATE) % 200 == 0, 0.9, 0.0),
}


def wav(wave: Wave) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()
