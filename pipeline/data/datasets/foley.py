"""Generate the built-in dataset: the ten classes of UrbanSound8K, synthesised.

File names, metadata columns and the mix of audio formats are those of UrbanSound8K (Salamon, Jacoby
and Bello, ACM MM 2014), so the same reader reads both. A *recording* has a voice (pitch, timbre,
place, microphone, file format). Its *slices* share the voice and differ in time.

The same parameters give the same bytes on every machine. Therefore samples are computed only with
operations that IEEE 754 rounds exactly (+ - * / sqrt floor, comparisons, running sums) and from the
raw doubles of PCG64. The last bit of ``np.sin``, ``np.exp``, powers, FFTs, dot products and
``np.sum`` differs between processors and builds. So does compiled code that may fuse a product and
a sum (``np.interp``, ``np.arange`` of floats, ``Generator.uniform``).
"""

import csv
import itertools
import math
import operator
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.params import FoleyParams

Wave = npt.NDArray[np.float64]
Seed = tuple[int, ...]
Row = tuple[str | int, ...]
T = TypeVar("T")
Mode = tuple[float, float, float]
"""A resonance: frequency in Hz, decay time in seconds, amplitude."""

COLUMNS = ("slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class")
SECONDS = 4.0
FIRST_ID = 100_000

# Shares in percent, as in UrbanSound8K, but the rare formats are a little less rare.
RATES = {
    8000: 4, 11025: 4, 16000: 5, 22050: 7, 24000: 6,
    32000: 5, 44100: 43, 48000: 22, 96000: 3, 192000: 1,
}  # fmt: skip
CHANNELS = {1: 40, 2: 60}
ENCODINGS = {"u8": 4, "s16": 67, "s24": 20, "s32": 4, "f32": 5}
SHORT = {"car_horn": 0.4, "dog_bark": 0.4, "gun_shot": 0.6}
SHORT_OTHERS = 0.04
BACKGROUND = 0.2


class Dice:
    """Seeded random numbers, all computed exactly from one stream of uniform doubles."""

    def __init__(self, *seed: int) -> None:
        self._uniform = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed))).random

    def between(self, low: float, high: float) -> float:
        """Return a number from a uniform distribution."""
        return low + (high - low) * self._uniform()

    def geometric(self, low: float, high: float) -> float:
        """Return a number whose logarithm is uniform, for pitches, levels and times."""
        value, ratio = low, high / low
        for bit in self._uniform(10) < 0.5:  # half of the interval or not, a quarter or not, ...
            ratio = math.sqrt(ratio)
            value *= ratio if bit else 1.0
        return value

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self._uniform() < probability

    def below(self, count: int) -> int:
        """Return an integer from 0 to `count` - 1."""
        return int(self._uniform() * count)

    def pick(self, shares: Mapping[T, int]) -> T:
        """Return a key with a probability in proportion to its share."""
        deck = [key for key, share in shares.items() for _ in range(share)]
        return deck[self.below(len(deck))]

    def white(self, n: int) -> Wave:
        """Return white noise: array, shape (n,), float64, uniform from -1 to 1."""
        return self._uniform(n) * 2.0 - 1.0


Synthesiser = Callable[[Dice, Dice, int, float], Wave]
"""Takes the recording's voice, the slice's random numbers, a number of samples and a sample rate in
Hz; returns a waveform of any level."""


# --- the building blocks ---------------------------------------------------------------------


def _sine(phase: Wave) -> Wave:
    """Return the sine of a phase in cycles, within 3e-7; odd, and zero at half a cycle."""
    x = phase - np.floor(phase + 0.5)
    s = x * x
    p = s * 3.01841262
    for c in (-9.51589001, 16.7595023, -16.2086536):
        p += c
        p *= s
    p += 6.28318377
    p *= x
    s *= -4.0
    s += 1.0
    p *= s
    return p


def _decay(x: Wave) -> Wave:
    """Return about exp(-x) for x >= 0: (1 - x / 64) ** 64, by squaring."""
    y = x * (-1 / 64)
    y += 1.0
    np.maximum(y, 0.0, out=y)
    for _ in range(6):
        y *= y
    return y


def _phase(frequency: Wave | float, n: int, rate: float) -> Wave:
    """Return the cycles since the start, shape (n,), for one frequency in Hz or one per sample."""
    if isinstance(frequency, float):
        return np.arange(n) / (rate / frequency)
    cycles: Wave = np.cumsum(frequency)
    return cycles / rate


def _wander(dice: Dice, n: int, points: float) -> Wave:
    """Return a smooth random curve from -1 to 1, shape (n,), with about `points` turns."""
    place = np.arange(n) / (n / points)
    i = place.astype(np.int64)
    place -= i
    ease = place * place * (3.0 - 2.0 * place)
    level = dice.white(int(points) + 3)
    return level[i] + (level[i + 1] - level[i]) * ease


def _fade(n: int, rate: float, attack: float, release: float) -> Wave:
    """Return an envelope, shape (n,): 1, with a rise and a fall of the given seconds."""
    t = np.arange(n) / rate
    return np.minimum(np.minimum(t / attack, t[::-1] / release), 1.0)


def _smooth(x: Wave, width: int) -> Wave:
    """Return the running mean of the last `width` samples, shape of `x`."""
    total = np.cumsum(np.concatenate((np.zeros(width), x)))
    total = np.concatenate((np.zeros(1), total))
    return (total[width:-1] - total[: -width - 1]) / width


def _noise(dice: Dice, n: int, tilt: float) -> Wave:
    """Return coloured noise, shape (n,): white for a tilt near 0, pink at 1, brown above 1.4.

    It is a sum of sampled and held noises (R. F. Voss); each is an octave slower than the one
    before and `tilt` times as strong.
    """
    out = dice.white(n)
    gain = 1.0
    for octave in range(1, 9):
        gain *= tilt
        out += np.repeat(gain * dice.white((n >> octave) + 1), 1 << octave)[:n]
    return out


def _band(dice: Dice, n: int, rate: float, centre: float, width: float) -> Wave:
    """Return noise around a frequency, which is slow noise on a carrier; values are in Hz."""
    slow = _smooth(dice.white(n), max(1, int(rate / width)))
    return slow * _sine(_phase(centre, n, rate))


def _tone(phase: Wave, partials: Sequence[float]) -> Wave:
    """Return a harmonic tone, by sin((k + 1) x) = 2 cos(x) sin(k x) - sin((k - 1) x)."""
    turn = 2.0 * _sine(phase + 0.25)
    before, now = np.zeros_like(phase), _sine(phase)
    out = now * partials[0]
    for amplitude in partials[1:]:
        before, now = now, turn * now - before
        out += now * amplitude
    return out


def _partials(voice: Dice, count: int, brightness: float) -> list[float]:
    """Draw amplitudes of harmonics, each about `brightness` times the one below."""
    amplitudes, level = [1.0], 1.0
    for _ in range(15):
        level *= brightness
        amplitudes.append(level * voice.between(0.3, 1.7))
    return amplitudes[: max(1, min(count, 16))]


def _pulses(pitch: Wave, rate: float) -> tuple[Wave, npt.NDArray[np.int64]]:
    """Return seconds since the last pulse, and its number; `pitch` is in pulses per second."""
    phase = _phase(pitch, len(pitch), rate)
    whole = np.floor(phase)
    return (phase - whole) / pitch, whole.astype(np.int64)


def _ring(since: Wave, modes: Iterable[Mode]) -> Wave:
    """Return resonances that every pulse excites: formants of a voice, a clank, an exhaust."""
    out = np.zeros_like(since)
    for frequency, time, amplitude in modes:
        out += _sine(since * frequency) * _decay(since / time) * amplitude
    return out


def _modes(voice: Dice, *ranges: tuple[float, float], decay: float) -> list[Mode]:
    """Draw a resonance from each range in Hz; higher ones are shorter and weaker."""
    modes, amplitude = [], 1.0
    for low, high in ranges:
        modes.append((voice.geometric(low, high), decay * voice.geometric(0.6, 1.6), amplitude))
        amplitude *= voice.between(0.4, 0.9)
        decay *= 0.75
    return modes


def _add(out: Wave, seconds: float, rate: float, sound: Wave) -> None:
    """Mix a sound into `out` from a time in seconds on, and cut it at the end."""
    start = int(seconds * rate)
    n = min(len(sound), len(out) - start)
    if n > 0:
        out[start : start + n] += sound[:n]


def _level(x: Wave, rate: float) -> float:
    """Return the RMS of the loudest 50 ms above 50 Hz, which suits a bark as well as a fan."""
    heard = x - _smooth(x, int(rate / 100))
    return math.sqrt(float(np.max(_smooth(heard * heard, min(len(x), int(0.05 * rate))))))


# --- the ten classes -------------------------------------------------------------------------


def air_conditioner(voice: Dice, take: Dice, n: int, rate: float) -> Wave:
    """Mix rushing air, a duct's resonances and the fan's hum."""
    air = _noise(take, n, voice.between(0.6, 1.3))
    for _ in range(2):
        centre, width = voice.geometric(120, 3000), voice.geometric(60, 600)
        air += voice.geometric(0.5, 6) * _band(take, n, rate, centre, width)
    fan = voice.geometric(40, 120)
    speed = fan * (1.0 + 0.01 * _wander(take, n, 6))
    hum = _tone(_phase(speed, n, rate), _partials(voice, 16, voice.between(0.5, 0.95)))
    flutter = 1.0 + voice.between(0.0, 0.2) * _sine(_phase(fan / (2 + voice.below(4)), n, rate))
    return air * flutter / _level(air, rate) + hum * voice.geometric(0.1, 1.0) / _level(hum, rate)


def car_horn(voice: Dice, take: Dice, n: int, rate: float) -> Wave:
    """Sound one or two bright steady notes, a third apart, in honks."""
    pitch = voice.geometric(200, 620)
    notes = [pitch, pitch * voice.between(1.18, 1.34)][: 1 + voice.chance(0.75)]
    partials = _partials(voice, int(0.42 * rate / notes[-1]), voice.between(0.6, 0.95))
    honk = voice.geometric(0.12, 3.0)
    passing = 1.0 + voice.between(0.0, 0.04) * _wander(take, n, 2)
    both = np.zeros(n)
    for note in notes:
        both += _tone(_phase(note * passing, n, rate), partials)
    gate = np.zeros(n)
    t = 0.0
    while t < n / rate:
        length = honk * take.geometric(0.6, 1.7)
        _add(gate, t, rate, _fade(int(length * rate) + 2, rate, 0.015, 0.04))
        t += length + take.geometric(0.08, 0.9)
    return both * gate


def _syllable(take: Dice, seconds: float, rate: float, *, pitch: float, size: float) -> Wave:
    """Sing a vowel: a gliding pitch through formants; `size` is above 1 for a small mouth."""
    m = int(seconds * rate)
    glide = 1.0 + take.between(-0.2, 0.35) * np.arange(m) / m + 0.05 * _wander(take, m, 2)
    vowel = (
        (size * take.geometric(350, 950), 0.005, 1.0),
        (size * take.geometric(1000, 2600), 0.004, 0.5),
        (size * take.between(2900, 3500), 0.002, 0.25),
    )
    since, _ = _pulses(pitch * glide, rate)
    return (_ring(since, vowel) + 0.03 * take.white(m)) * _fade(m, rate, 0.02, 0.05)


def children_playing(voice: Dice, take: Dice, n: int, rate: float) -> Wave:
    """Let several high voices call, laugh and scream over each other."""
    out = np.zeros(n)
    for child in range(2 + voice.below(4)):
        pitch, size = voice.geometric(240, 520), voice.between(0.95, 1.35)
        near = voice.geometric(0.2, 1.0)
        t = take.between(0.0, 1.5) if child else 0.0
        while t < n / rate:
            laughs, screams = take.chance(0.17), take.chance(0.17)
            high = pitch * (take.geometric(1.6, 2.6) if screams else take.geometric(0.8, 1.6))
            for _ in range(3 + take.below(4) if laughs else 1 + take.below(3)):
                seconds = take.between(0.07, 0.13) if laughs else take.geometric(0.12, 0.6)
                _add(out, t, rate, near * _syllable(take, seconds, rate, pitch=high, size=size))
                t += seconds + (0.07 if laughs else take.between(0.0, 0.12))
                high *= 0.94 if laughs else take.between(0.8, 1.2)
            t += take.geometric(0.1, 1.2)
    return out


def dog_bark(voice: Dice, take: Dice, n: int, rate: float) -> Wave:
    """Send bursts whose pitch rises and falls through the formants of a muzzle."""
    out = np.zeros(n)
    pitch = voice.geometric(170, 800)
    muzzle = _modes(voice, (400, 1100), (1100, 2400), (2500, 4500), decay=0.005)
    length = voice.geometric(0.07, 0.3)
    rough = voice.between(0.05, 0.8)
    pause = voice.geometric(0.15, 1.2)
    howls = voice.chance(0.15)
    t = take.between(0.0, 0.02)
    while t < n / rate:
        for _ in range(1 + take.below(3)):
            stretch = 3.0 if howls and take.chance(0.4) else 1.0
            m = int(rate * length * stretch * take.geometric(0.7, 1.4))
            x = np.arange(m) / m
            f0 = pitch * take.between(0.85, 1.15) * (0.7 + 1.6 * x * (1.0 - x))
            sound = _ring(_pulses(f0, rate)[0], muzzle)
            sound += rough * take.white(m) * _smooth(np.abs(sound), 24)
            sound *= _fade(m, rate, 0.012, 0.6 * m / rate)
            _add(out, t, rate, sound * take.geometric(0.5, 1.0))
            t += m / rate + take.between(0.04, 0.15)
        t += pause * take.geometric(0.6, 1.8)
    return out


def _strikes(voice: Dice, take: Dice, n: int, rate: float, *, pace: float, decay: float) -> Wave:
    """Strike steel regularly: thump, clank, and the rubble's noise."""
    speed = pace * (1.0 + voice.between(0.01, 0.06) * _wander(take, n, 8))
    since, count = _pulses(speed, rate)
    steel = _modes(voice, (60, 200), (500, 1500), (1500, 3400), (2800, 6500), decay=decay)
    sound = _ring(since, steel)
    rubble = _noise(take, n, voice.between(0.2, 0.8)) * _decay(since / (2 * decay))
    blow = 1.0 + 0.5 * take.white(int(count[-1]) + 1)[count]
    return (sound + voice.geometric(0.1, 1.0) * rubble) * blow


def _bursts(voice: Dice, take: Dice, n: int, rate: float) -> Wave:
    """Make the envelope of a machine that is held on and let go."""
    gate = np.full(n, voice.geometric(0.02, 0.2))
    on, off = voice.geometric(0.7, 6.0), voice.geometric(0.15, 0.8)
    t = -take.between(0.0, 0.5 * on)
    while t < n / rate:
        length = on * take.geometric(0.7, 1.4)
        m = int((length + min(t, 0.0)) * rate) + 2
        _add(gate, max(t, 0.0), rate, _fade(m, rate, 0.03, 0.08))
        t += length + off * take.geometric(0.6, 1.6)
    return gate


def drilling(voice: Dice, take: Dice, n: int, rate: float) -> Wave:
    """Drill with a hammer drill: fast blows and the motor's whine."""
    gate = _bursts(voice, take, n, rate)
    blows = _strikes(
        voice, take, n, rate, pace=voice.geometric(25, 80), decay=voice.geometric(0.003, 0.012)
    )
    load = voice.geometric(250, 1100) * (0.85 + 0.15 * gate + 0.02 * _wander(take, n, 10))
    whine = _tone(_phase(load, n, rate), _partials(voice, 6, voice.between(0.4, 0.9)))
    whine /= _level(whine, rate)
    return gate * (blows / _level(blows, rate) + voice.geometric(0.08, 1.0) * whine)


def engine_idling(voice: Dice, take: Dice, n: int, rate: float) -> Wave:
    """Fire uneven cylinders through the exhaust, with clatter and a fan."""
    pace = voice.geometric(14, 48) * (1.0 + 0.05 * _wander(take, n, voice.geometric(2, 16)))
    since, count = _pulses(pace, rate)
    exhaust = _modes(voice, (50, 130), (120, 400), (350, 900), decay=voice.geometric(0.008, 0.03))
    clatter = _modes(voice, (900, 2000), (2000, 4500), decay=0.004)
    cylinders = 1.0 + voice.between(0.05, 0.5) * voice.white(2 + 2 * voice.below(3))
    sound = _ring(since, exhaust) + voice.geometric(0.02, 0.5) * _ring(since, clatter)
    sound *= cylinders[count % len(cylinders)]
    puff = _noise(take, n, voice.between(0.7, 1.3))
    puff *= voice.between(0.2, 1.0) + _decay(since / 0.0125)
    return sound / _level(sound, rate) + voice.geometric(0.1, 0.5) * puff / _level(puff, rate)


def gun_shot(voice: Dice, take: Dice, n: int, rate: float) -> Wave:
    """Fire single shots or an automatic: a crack, its boom, an echo."""
    out = np.zeros(n)
    crack, boom = voice.geometric(0.002, 0.02), voice.geometric(0.04, 0.4)
    tilt, weight = voice.between(0.6, 1.2), voice.geometric(0.1, 0.7)
    echo, echoes = voice.geometric(0.08, 0.5), voice.geometric(0.05, 0.5)
    automatic = voice.chance(0.3)
    gap, pause = voice.geometric(0.07, 0.14), voice.geometric(0.6, 4.0)
    m = int(rate * 6 * boom)
    since = np.arange(m) / rate
    t = take.between(0.0, 0.02)
    while t < n / rate:
        for _ in range(3 + take.below(8) if automatic else 1):
            shot = take.white(m) * _decay(since / crack)
            shot += weight * _noise(take, m, tilt) * _decay(since / boom)
            shot *= take.between(0.7, 1.0)
            _add(out, t, rate, shot)
            _add(out, t + echo, rate, echoes * _smooth(shot, 8))
            t += gap * take.between(0.95, 1.05)
        t += pause * take.geometric(0.6, 1.6)
    return out


def jackhammer(voice: Dice, take: Dice, n: int, rate: float) -> Wave:
    """Strike slow heavy blows that ring, a compressor behind them."""
    blows = _strikes(
        voice, take, n, rate, pace=voice.geometric(8, 22), decay=voice.geometric(0.006, 0.025)
    )
    air = _noise(take, n, voice.between(0.7, 1.2))
    air *= 1.0 + 0.5 * _sine(_phase(voice.geometric(15, 40), n, rate))
    gate = _bursts(voice, take, n, rate)
    return gate * blows / _level(blows, rate) + voice.geometric(0.05, 0.4) * air / _level(air, rate)


def siren(voice: Dice, take: Dice, n: int, rate: float) -> Wave:
    """Wail, yelp, or give two notes in turn, passing by."""
    kind = voice.below(3)
    period = (voice.geometric(2, 8), voice.geometric(0.2, 0.5), voice.geometric(0.7, 1.8))[kind]
    low = voice.geometric(330, 800)
    high = low * (voice.geometric(1.2, 1.5) if kind == 2 else voice.geometric(1.5, 2.4))
    sweep = 0.5 + 0.5 * _sine(_phase(1 / period, n, rate) + take.between(0.0, 1.0))
    if kind == 2:
        sweep = _smooth(np.where(sweep > 0.5, 1.0, 0.0), int(0.02 * rate))
    pitch = (low + (high - low) * sweep) * (1.0 + 0.03 * _wander(take, n, 1.5))
    partials = _partials(voice, int(0.42 * rate / high), voice.between(0.3, 0.85))
    return _tone(_phase(pitch, n, rate), partials) * (0.7 + 0.3 * _wander(take, n, 3))


SEMITONES = tuple(itertools.accumulate([1.0594630943592953] * 36, operator.mul, initial=1.0))
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9))


def street_music(voice: Dice, take: Dice, n: int, rate: float) -> Wave:
    """Play a tune in a key over chords, at a beat, often with drums."""
    out = np.zeros(n)
    root = voice.geometric(110, 220)
    scale = SCALES[voice.below(3)]
    beat = voice.geometric(0.3, 0.7)
    lead = _partials(voice, 8, voice.between(0.2, 0.9))
    pad = _partials(voice, 5, voice.between(0.2, 0.7))
    plucked, sings = voice.chance(0.5), voice.between(0.0, 0.012)
    ring = voice.geometric(0.15, 0.8)
    chords, drums = voice.geometric(0.1, 0.6), voice.geometric(0.1, 1.2) * voice.chance(0.6)

    def note(degree: int, seconds: float, partials: Sequence[float]) -> Wave:
        step = scale[degree % len(scale)] + 12 * (degree // len(scale))
        m = int(seconds * rate)
        t = np.arange(m) / rate
        f0 = root * SEMITONES[step] * (1.0 + sings * _sine(t * 5.5))
        sound = _tone(_phase(f0, m, rate), partials) * _fade(m, rate, 0.012, 0.05)
        return sound * _decay(t / ring) if plucked else sound

    degree, t, count = 5 + take.below(6), 0.0, 0
    while t < n / rate:
        if count % 4 == 0:
            base = (0, 3, 4, 5)[take.below(4)]
            for third in (0, 2, 4):
                _add(out, t, rate, chords * note(base + third, 4 * beat, pad))
        notes = 1 + take.below(2)
        for i in range(notes):
            degree = min(14, max(3, degree + take.below(5) - 2))
            tune = note(degree, beat / notes, lead)
            _add(out, t + i * beat / notes, rate, take.between(0.6, 1.0) * tune)
        m = int(0.25 * rate)
        since = np.arange(m) / rate
        if count % 2 == 0:
            _add(out, t, rate, 2 * drums * _sine(since * 62.0) * _decay(since / 0.07))
        else:
            _add(out, t, rate, drums * take.white(m) * _decay(since / 0.03))
        t += beat
        count += 1
    return out


SYNTHESISERS: dict[str, Synthesiser] = {
    f.__name__: f
    for f in (
        air_conditioner, car_horn, children_playing, dog_bark, drilling,
        engine_idling, gun_shot, jackhammer, siren, street_music,
    )
}  # fmt: skip
CLASSES = tuple(SYNTHESISERS)
"""The place of a class is its ``classID``."""


# --- from a class to a clip ------------------------------------------------------------------


def _room(place: Dice, x: Wave, rate: float) -> Wave:
    """Add reflections at random delays, weaker with time."""
    out = x.copy()
    size, wet = place.geometric(0.01, 0.25), place.geometric(0.03, 0.5)
    for _ in range(10):
        share = place.between(0.02, 1.0)
        gain = wet * (1.0 - share) * (1.0 if place.chance(0.5) else -1.0)
        delay = min(int(size * share * rate), len(x))
        out[delay:] += gain * x[: len(x) - delay]
    return out


def _clip(label: str, salience: int, seed: Seed, take: Dice, *, n: int, rate: float) -> Wave:
    """Synthesise one slice as its microphone records it.

    The target sounds in its room, over a background at -3 to 30 dB. Some clips also contain another
    class.
    """
    voice, place = Dice(*seed, 1), Dice(*seed, 2)
    mix = _room(place, SYNTHESISERS[label](voice, take, n, rate), rate)
    mix /= _level(mix, rate)
    gusts = 1.0 + place.between(0.0, 0.6) * _wander(take, n, 5)
    bed = _noise(take, n, place.between(0.6, 1.4)) * gusts
    ratio = place.geometric(3.5, 32.0) if salience == 1 else place.geometric(0.8, 3.0)
    if (
        label == "gun_shot" and salience == 2
    ):  # a shot is noise itself, so the background would hide it
        ratio *= 2.5
    mix += bed / (_level(bed, rate) * ratio)
    if take.chance(0.2):
        other = CLASSES[(CLASSES.index(label) + 1 + take.below(len(CLASSES) - 1)) % len(CLASSES)]
        second = SYNTHESISERS[other](take, take, n, rate)
        loud = take.geometric(0.06, 0.3) if salience == 1 else take.geometric(0.2, 0.6)
        mix += second * (loud / _level(second, rate))
    colour = place.between(-0.5, 0.5)  # a microphone that sounds dull or thin
    mix[1:] -= colour * mix[:-1].copy()
    if place.chance(0.2):
        mix -= _smooth(mix, int(rate / place.geometric(100, 400)))
    return mix * (place.geometric(0.2, 1.3) / float(np.max(np.abs(mix))))


def _midpoints(x: Wave) -> Wave:
    """Interpolate half-way after each sample, with 8-point Lagrange polynomials."""
    padded = np.concatenate((np.repeat(x[:1], 3), x, np.repeat(x[-1:], 4)))
    n = len(x)
    out = np.zeros(n)
    for k, weight in enumerate((1225, -245, 49, -5)):
        out += (padded[3 - k : 3 - k + n] + padded[4 + k : 4 + k + n]) * (weight / 2048)
    return out


def _octaves(x: Wave, octaves: int) -> Wave:
    """Resample to 2 ** `octaves` times the rate, with the half-band filter of `_midpoints`."""
    if octaves < 0:
        odd = _midpoints(x[1::2])
        return 0.5 * (x[::2] + np.concatenate((odd[:1], odd[:-1])))
    for _ in range(octaves):
        x = np.stack((x, _midpoints(x)), axis=1).reshape(-1)
    return x


def _wav(x: Wave, rate: int, encoding: str) -> bytes:
    """Encode frames, shape (n, channels), from -1 to 1, as a RIFF file.

    libsndfile would write the time of day into files of floats.
    """
    bits = int(encoding[1:])
    if encoding == "f32":
        data = x.astype("<f4").tobytes()
    else:
        whole = np.rint(np.clip(x, -1.0, 1.0) * ((1 << bits - 1) - 1)).astype("<i8")
        whole += 128 if encoding == "u8" else 0
        data = whole.view("u1").reshape(*x.shape, 8)[..., : bits // 8].tobytes()
    frame = x.shape[1] * bits // 8
    head = struct.pack(
        "<HHIIHH", 3 if encoding == "f32" else 1, x.shape[1], rate, rate * frame, frame, bits
    )
    chunks = [(b"fmt ", head), (b"data", data)]
    if (
        encoding == "f32"
    ):  # other encodings than integers need an extension and the number of frames
        chunks[:1] = [(b"fmt ", head + bytes(2)), (b"fact", struct.pack("<I", len(x)))]
    body = b"".join(k + struct.pack("<I", len(v)) + v + bytes(len(v) % 2) for k, v in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


@dataclass(frozen=True)
class Recording:
    """A source of slices. Its number and the seed determine all of its sound."""

    fs_id: int
    fold: int
    label: str


def _slices(recording: Recording, params: FoleyParams) -> Iterator[tuple[Row, bytes]]:
    """Yield the metadata row and the bytes of the file of each slice."""
    label, class_id = recording.label, CLASSES.index(recording.label)
    seed = (params.seed, recording.fs_id)
    nature = Dice(*seed, 0)
    rate = nature.pick(RATES)
    channels, encoding = nature.pick(CHANNELS), nature.pick(ENCODINGS)
    salience = 2 if nature.chance(BACKGROUND) else 1
    pan, spacing = nature.geometric(0.4, 1.0), int(nature.between(0.0, 0.0005) * rate)
    hiss = nature.geometric(0.00003, 0.003)
    # Synthesise at 16 to 24 kHz, then resample in octaves to the rate of the file.
    octaves = (rate > 24000) + (rate > 48000) + (rate > 96000) - (rate < 16000)
    base_rate = math.ldexp(rate, -octaves)
    start, occurrence, part = nature.between(0.0, 20.0), 0, 0
    for number in range(1 + nature.below(params.slices)):
        take = Dice(*seed, 3, number)
        short = take.chance(SHORT.get(label, SHORT_OTHERS))
        seconds = take.geometric(0.05, SECONDS) if short else SECONDS
        n = 2 * int(seconds * base_rate / 2)
        mono = _octaves(_clip(label, salience, seed, take, n=n, rate=base_rate), octaves)
        both = [mono, pan * np.concatenate((np.zeros(spacing), mono))[: len(mono)]]
        frames = np.stack([x + hiss * take.white(len(x)) for x in both[:channels]], axis=1)
        name = f"{recording.fs_id}-{class_id}-{occurrence}-{part}.wav"
        end = start + len(frames) / rate
        row = (name, recording.fs_id, f"{start:.6f}", f"{end:.6f}", salience, recording.fold)
        yield (*row, class_id, label), _wav(np.clip(frames, -1.0, 1.0), rate, encoding)
        # A short sound is over; one that fills its slice continues in the next.
        occurrence, part = (occurrence + 1, 0) if short else (occurrence, part + 1)
        start = end + (take.between(0.5, 10.0) if short else 0.0)


def generate(
    params: FoleyParams,
    folder: Path,
    progress: Callable[[Sequence[Recording]], Iterable[Recording]] = iter,
) -> None:
    """Write the dataset in UrbanSound8K's layout.

    The folders ``audio/fold1`` and so on contain ``fsID-classID-occurrence-slice.wav``. The file
    ``metadata/UrbanSound8K.csv``, written last, has one row per clip. Salience is 1 for a target in
    the foreground and 2 for one in the background.

    Parameters
    ----------
    params : FoleyParams
        Seed and size. The same parameters give the same bytes.
    folder : Path
        Where to write. It is made if missing, and files of the same names are replaced.
    progress : callable
        Wraps the sequence of recordings to show progress, such as ``tqdm``.

    Examples
    --------
    >>> from tqdm import tqdm
    >>> params = FoleyParams(seed=1, folds=10, recordings=3, slices=3)
    >>> generate(params, Path("data/foley"), progress=tqdm)  # doctest: +SKIP
    """
    places = [
        (fold, label)
        for fold in range(1, params.folds + 1)
        for label in CLASSES
        for _ in range(params.recordings)
    ]
    recordings = [Recording(FIRST_ID + i, *place) for i, place in enumerate(places)]
    rows: list[Row] = []
    for recording in progress(recordings):
        audio = folder / "audio" / f"fold{recording.fold}"
        audio.mkdir(parents=True, exist_ok=True)
        for row, wav in _slices(recording, params):
            (audio / str(row[0])).write_bytes(wav)
            rows.append(row)
    metadata = folder / "metadata" / "UrbanSound8K.csv"
    metadata.parent.mkdir(exist_ok=True)
    with metadata.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
