"""The BentoML service: ``bentoml serve``.

BentoML brings the process, its worker, probes and the image; requests are answered by
:mod:`pipeline.api`. This module is loaded by the process that supervises the worker as well, so
everything heavy waits until a worker starts.
"""

import os
import sys
from typing import TYPE_CHECKING

# Before anything else reads them. One thread a BLAS call: its others would fight with ours for the
# cores. And tell nobody that the service is used.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")

import bentoml

from pipeline.bundle import read_card
from pipeline.errors import UserError
from pipeline.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

TIMEOUT = 45
"""Seconds a request may take: 30 to arrive, 2 to wait, 10 to be decoded."""

if "uvicorn" in sys.modules:  # a worker: its server is made after this module is read
    from pipeline.connection import limit_headers

    limit_headers(Settings.read().max_arrival_seconds)

_answer: "ASGIApp | None" = None


async def application(scope: "Scope", receive: "Receive", send: "Send") -> None:
    """Pass a request to the application of this worker; BentoML starts it before any arrives."""
    assert _answer is not None  # noqa: S101
    await _answer(scope, receive, send)


@bentoml.service(
    name="sound-classifier",
    workers=1,
    traffic={"timeout": TIMEOUT},
    # BentoML's own figures have a time series for every path that anybody asks for: ours have not.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    envs=[
        {"name": "OPENBLAS_NUM_THREADS", "value": "1"},
        # memory pools of the C library, by default eight a core
        {"name": "MALLOC_ARENA_MAX", "value": "2"},
        # large arrays go back to the system: what eight long clips needed is not kept for ever
        {"name": "MALLOC_MMAP_THRESHOLD_", "value": "1000000"},
        # BentoML keeps what is traced of a request until its time is up: 4 KB each, for 45 s
        {"name": "OTEL_SDK_DISABLED", "value": "true"},
    ],
)
@bentoml.asgi_app(application, path="/")
class SoundClassifier:
    """Serves the bundle that ``python -m pipeline.package`` made."""

    def __init__(self) -> None:
        from pipeline import api, classifier, monitoring

        global _answer  # noqa: PLW0603  # one service a process; BentoML mounts before it makes it
        settings = Settings.read()
        model = classifier.Classifier.load(settings.bundle)
        reference = classifier.read_reference(settings.bundle)
        metrics = monitoring.Metrics(reference, settings.drift_predictions)
        log = monitoring.PredictionLog(settings.prediction_log, metrics)
        app, answer = api.make(model, settings, metrics, log)
        api.warm_up(app, model, settings.threads)
        _answer = answer

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def check() -> None:
        """Say in the supervising process what is wrong, for it starts failing workers for ever."""
        try:
            read_card(Settings.read().bundle)
        except UserError as error:
            sys.exit(f"serve: error: {error}")

    async def __is_ready__(self) -> bool:
        """Whether warm-up is over."""
        return _answer is not None


class Direct:
    """Takes requests past BentoML's own middleware to our application; start and stop stay its.

    Its time-out keeps a timer, and with it the request, for as long as a request may take, after
    it was answered: under load that is memory, 9 KB a request. And it answers a path with a line
    break in it itself, in plain text.
    """

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass on what the server sends."""
        app = application if scope["type"] == "http" else self.app
        await app(scope, receive, send)


SoundClassifier.add_asgi_middleware(Direct)  # type: ignore[attr-defined]  # a bentoml.Service
