"""Check that a deployed service answers as the bundle does on this machine.

python -m deploy.smoke write            # write clips and the expected predictions to build/smoke/
python -m deploy.smoke check ADDRESS    # compare the service at ADDRESS with them
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile
from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_delay, wait_fixed

from deploy import config
from pipeline import paths, stage, tables
from pipeline.errors import UserError
from pipeline.serving.bundle import EXAMPLES
from pipeline.serving.classifier import Classifier
from pipeline.sound import decoding

FOLDER = config.BUILD / "smoke"
EXPECTED = "expected.json"

TOLERANCE = 1e-3
"""Maximum difference of a probability; another processor rounds differently."""


def write(folder: Path = FOLDER) -> str:
    """Write clips and the predictions that a service of ``bundle/`` has to return for them.

    The clips are the bundle's examples, if it has any, and generated sounds.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        If there is no bundle.
    """
    classifier = Classifier.load(paths.BUNDLE)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for clip in sorted((paths.BUNDLE / EXAMPLES).glob("*")):
        shutil.copy(clip, folder)
    rate = classifier.spec.sample_rate
    generate(folder, rate)
    limits = config.load().limits
    predictions = {}
    for clip in sorted(folder.iterdir()):
        prediction = classifier.predict(decoding.load(clip.read_bytes(), rate), limits.max_windows)
        best = int(prediction.probabilities.argmax())
        probability = round(float(prediction.probabilities[best]), 6)
        predictions[clip.name] = {"label": classifier.labels[best], "probability": probability}
    model = {"name": classifier.card["name"], "version": str(classifier.card["version"])}
    tables.write_json(folder / EXPECTED, {"model": model, "clips": predictions})
    return f"{len(predictions)} clips and their expected predictions -> {folder}/"


def generate(folder: Path, sample_rate: int) -> None:
    """Write two sounds that need no dataset: noise, and a stereo sweep that has to be resampled.

    Parameters
    ----------
    folder : Path
    sample_rate : int
        The model's, in Hz.
    """
    noise = np.random.default_rng(0).standard_normal(2 * sample_rate) * 0.1
    soundfile.write(folder / "noise.flac", noise, sample_rate)
    rate, seconds = 48_000, 2
    time = np.arange(seconds * rate) / rate
    sweep = 0.3 * np.sin(2 * np.pi * (200 * time + 1_000 * time**2))  # 200 Hz to 4,200 Hz
    soundfile.write(folder / "sweep.wav", np.stack([sweep, 0.5 * sweep], axis=1), rate)


def check(address: str, folder: Path = FOLDER, patience: float = 60.0) -> str:
    """Compare the predictions of a running service with the expected ones.

    Parameters
    ----------
    address : str
        Its URL; without a scheme, http.
    folder : Path
        As :func:`write` wrote it.
    patience : float
        Maximum time to wait until the service is ready, in seconds.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        If it is not ready in time, serves another model, or returns another prediction.
    """
    expected = _read(folder)
    if not address:
        raise UserError("URL is not set: `make smoke URL=...`.")
    url = address if "://" in address else f"http://{address}"
    # longer than the service and every proxy in front of it
    timeout = config.load().limits.request_seconds + 20
    try:
        with httpx.Client(base_url=url, timeout=timeout) as client:
            _wait_until_ready(client, patience)
            _compare(client, expected, folder)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
        raise UserError(f"{url} returned an invalid response: {error}.") from error
    served, count = "{name} version {version}".format(**expected["model"]), len(expected["clips"])
    return f"{url} serves {served} and predicts as expected on {count} clips"


def _read(folder: Path) -> dict[str, Any]:
    """Read the expected predictions; make sure that every clip is there."""
    file = folder / EXPECTED
    if not file.is_file():
        raise UserError(f"{file} is missing: `make eb-bundle` writes it.")
    try:
        expected: dict[str, Any] = tables.read_json(file)
    except UserError:
        raise UserError(f"{file} is damaged: write it again with `make eb-bundle`.") from None
    for name in expected["clips"]:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: `make eb-bundle` writes it.")
    return expected


def _compare(client: httpx.Client, expected: dict[str, Any], folder: Path) -> None:
    """Compare model and predictions; raise UserError at the first difference."""
    url = client.base_url
    card = client.get("/model").raise_for_status().json()
    model = {key: card[key] for key in ("name", "version")}
    if model != expected["model"]:
        raise UserError(f"{url} serves {model} instead of {expected['model']}.")
    for name, prediction in expected["clips"].items():
        files = {"file": (name, (folder / name).read_bytes())}
        got = client.post("/classify", files=files).raise_for_status().json()
        differs = abs(got["probability"] - prediction["probability"]) > TOLERANCE
        if got["label"] != prediction["label"] or differs or got["model"] != model:
            shown = {key: got[key] for key in ("label", "probability", "model")}
            raise UserError(f"{url} predicts {shown} for {name} instead of {prediction}.")


def _wait_until_ready(client: httpx.Client, patience: float) -> None:
    def read() -> str:
        try:
            return str(client.get("/readyz").status_code)
        except httpx.HTTPError as error:
            return str(error)

    def give_up(last: RetryCallState) -> None:
        said = last.outcome.result() if last.outcome else ""
        raise UserError(f"{client.base_url} is not ready after {patience:g} s: {said}.")

    Retrying(
        retry=retry_if_result(lambda status: status != "200"),
        wait=wait_fixed(1),
        stop=stop_after_delay(patience),
        retry_error_callback=give_up,
    )(read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m deploy.smoke",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write")
    commands.add_parser("check").add_argument("address")
    given = parser.parse_args()
    stage.run("smoke", lambda: write() if given.command == "write" else check(given.address))
