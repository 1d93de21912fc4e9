"""Random numbers: every purpose has its own, and a resumed search has those it would have had."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest

from pipeline import params
from pipeline.params import Choices, Range
from pipeline.sound import augment
from pipeline.sound.features import Rows
from pipeline.training import search, trial
from pipeline.training.random_streams import derived_seed, random_stream

TESTS = Path(__file__).parents[1]
SETTINGS = params.load(TESTS / "params.yaml")
SPACE: dict[str, Range | Choices] = {"dropout": Range(low=0.1, high=0.5)}


def test_no_two_streams_begin_alike() -> None:
    places = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1), (0, 0, 0)]
    drawn = [
        random_stream(seed, purpose, *place).random()
        for seed in range(20)
        for purpose in ("shuffle", "augment", "sampler", "ensemble")
        for place in places
    ]
    assert len(set(drawn)) == 20 * 4 * len(places)


def test_the_same_stream_is_the_same_in_another_process() -> None:
    script = (
        "from pipeline.training.random_streams import derived_seed;"
        " print(derived_seed(3, 'shuffle', 1))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=TESTS.parent, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == derived_seed(3, "shuffle", 1)


def test_the_shuffle_of_an_epoch_is_not_the_stream_of_its_first_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pipeline.training import fit

    first: list[np.ndarray] = []

    def recorded(clips: np.ndarray, targets: np.ndarray, rows: np.ndarray, *rest: object) -> object:
        rng = rest[2]
        assert isinstance(rng, np.random.Generator)
        first.append(rng.permutation(len(clips)))
        return clips[rows], targets[rows]

    monkeypatch.setattr(augment, "examples", recorded)
    monkeypatch.setattr(fit, "network_input", lambda clips, _: clips)
    clips = np.arange(64, dtype=np.float32).reshape(64, 1, 1)
    everything = Rows(clips, np.arange(64)), np.zeros((64, 2), np.float32)
    data = fit.Data(everything, everything, None)  # type: ignore[arg-type]
    batches = fit.Batches(data, params.with_values(SETTINGS.train, {"batch_size": 64}))
    for _ in range(3):
        order, _targets = batches[0]
        assert order.ravel().tolist() != first[-1].tolist()
        batches.on_epoch_end()
    assert len({tuple(order) for order in first}) == 3


def suggested(seed: int, finished: int = 0, trials: int = 8) -> list[float]:
    """Return the first suggestions of a search, which are random, from the trial `finished` on."""
    tune = SETTINGS.tune.model_copy(update={"seed": seed, "trials": trials * 10, "space": SPACE})
    study = optuna.create_study()
    values = []
    for place in range(finished, trials):
        study.sampler = search.sampler(tune, place)
        asked = study.ask()
        values.append(float(trial.suggest(asked, "dropout", SPACE["dropout"])))
        study.tell(asked, 0.5)
    return values


def test_searches_with_neighbouring_seeds_share_no_suggestion() -> None:
    drawn = [value for seed in range(5) for value in suggested(seed)]
    assert len(set(drawn)) == len(drawn)


def test_a_resumed_search_suggests_what_an_uninterrupted_one_would_have_suggested() -> None:
    assert suggested(3)[4:] == suggested(3, finished=4)
