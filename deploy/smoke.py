"""Ask a deployed service for what the bundle answers here: same model, same clips, same answers.

python -m deploy.smoke write            # build/smoke/: clips, and what the bundle says of them
python -m deploy.smoke check ADDRESS
"""

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile

from deploy import config
from pipeline import paths, stage
from pipeline.errors import UserError
from pipeline.serving.bundle import EXAMPLES
from pipeline.serving.classifier import Classifier
from pipeline.serving.settings import Settings as Limits
from pipeline.sound import decoding

FOLDER = config.BUILD / "smoke"
EXPECTED = "expected.json"

TOLERANCE = 1e-3
"""Of a probability; another processor rounds in another way."""


def write(folder: Path = FOLDER) -> str:
    """Write clips and the answers that a service of ``bundle/`` has to give.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        When there is no bundle.
    """
    classifier = Classifier.load(paths.BUNDLE)
    card = classifier.card
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for clip in sorted((paths.BUNDLE / EXAMPLES).glob("*.wav")):
        shutil.copy(clip, folder)
    rate = classifier.spec.sample_rate
    # no clip of the model's dataset may be at hand, but noise always is
    noise = np.random.default_rng(0).standard_normal(2 * rate) * 0.1
    soundfile.write(folder / "noise.flac", noise, rate)
    answers = {}
    for clip in sorted(folder.iterdir()):
        found = classifier.predict(decoding.load(clip.read_bytes(), rate), Limits().max_windows)
        best = int(found.probabilities.argmax())
        probability = round(float(found.probabilities[best]), 6)
        answers[clip.name] = {"label": classifier.labels[best], "probability": probability}
    model = {"name": card["name"], "version": str(card["version"])}
    text = json.dumps({"model": model, "clips": answers}, indent=2) + "\n"
    (folder / EXPECTED).write_text(text, encoding="utf-8")
    return f"{len(answers)} clips and their answers -> {folder}/"


def check(address: str, folder: Path = FOLDER, patience: float = 60.0) -> str:
    """Hold a running service against the answers.

    Parameters
    ----------
    address : str
        Its URL; without a scheme, http.
    folder : Path
        As :func:`write` wrote it.
    patience : float
        Seconds to wait until it is ready.

    Returns
    -------
    str
        The closing line.

    Raises
    ------
    UserError
        When it is not ready in time, is another model, or answers otherwise.
    """
    try:
        expected: dict[str, Any] = json.loads((folder / EXPECTED).read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder / EXPECTED} is missing: `make eb-bundle` writes it.") from None
    except ValueError:
        raise UserError(f"{folder / EXPECTED} is damaged: `make eb-bundle` writes it.") from None
    if not address:
        raise UserError("URL is not set: `make smoke URL=...`.")
    url = address if "://" in address else f"http://{address}"
    try:
        with httpx.Client(base_url=url, timeout=60) as client:
            _wait(client, patience)
            card = client.get("/model").raise_for_status().json()
            model = {key: card[key] for key in ("name", "version")}
            if model != expected["model"]:
                raise UserError(f"{url} serves {model}, and not {expected['model']}.")
            for name, answer in expected["clips"].items():
                files = {"file": (name, (folder / name).read_bytes())}
                said = client.post("/classify", files=files).raise_for_status().json()
                far = abs(said["probability"] - answer["probability"]) > TOLERANCE
                if said["label"] != answer["label"] or far or said["model"] != model:
                    got = {key: said[key] for key in ("label", "probability", "model")}
                    raise UserError(f"{url} answers {got} for {name}, and not {answer}.")
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing: `make eb-bundle` writes it.") from None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
        raise UserError(f"{url} does not answer as it should: {error}.") from error
    count = len(expected["clips"])
    return f"{url} serves version {model['version']} and is right on {count} clips"


def _wait(client: httpx.Client, patience: float) -> None:
    until = time.monotonic() + patience
    said = ""
    while time.monotonic() < until:
        try:
            said = str(client.get("/readyz").status_code)
            if said == "200":
                return
        except httpx.HTTPError as error:
            said = str(error)
        time.sleep(1)
    raise UserError(f"{client.base_url} is not ready after {patience:g} s: {said}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m deploy.smoke", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write")
    commands.add_parser("check").add_argument("address")
    given = parser.parse_args()
    stage.run("smoke", lambda: write() if given.command == "write" else check(given.address))
