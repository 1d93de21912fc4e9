"""The BentoML service: ``bentoml serve``.

BentoML brings the process, its worker, probes and the image; requests are answered by
:mod:`pipeline.serving.api`. The process that supervises the worker loads this module as well, so
everything heavy waits until a worker starts.
"""

import atexit
import errno
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

# Before anything else reads them. One thread a BLAS call: its others would fight with ours for the
# cores. And tell nobody that the service is used.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")

import bentoml

from pipeline.errors import UserError
from pipeline.serving.bundle import read_card
from pipeline.serving.settings import Settings

if TYPE_CHECKING:
    from types import TracebackType

    from starlette.types import ASGIApp, Receive, Scope, Send

TIMEOUT = 45
"""Seconds a request may take: 30 to arrive, 2 to wait, 10 to be decoded."""

if "uvicorn" in sys.modules:  # a worker: its server is made after this module is read
    from pipeline.serving.connection import limit_headers

    limit_headers(Settings.read().max_arrival_seconds)

SUPERVISOR = "SERVICE_SUPERVISOR"
"""Environment variable: the process that a worker tells when it cannot start."""

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
    """Serves the bundle that ``python -m pipeline package`` made."""

    def __init__(self) -> None:
        try:
            self._start()
        except Exception as error:
            _give_up(error)

    def _start(self) -> None:
        from pipeline.serving import api, classifier, monitoring
        from pipeline.sound import decoding

        global _answer  # noqa: PLW0603  # one service a process; BentoML mounts before it makes it
        settings = Settings.read()
        model = classifier.Classifier.load(settings.bundle)
        reference = classifier.read_reference(settings.bundle)
        metrics = monitoring.Metrics(reference, settings.drift_predictions)
        log = monitoring.PredictionLog(settings.prediction_log, metrics)
        app, answer = api.make(model, settings, metrics, log)
        api.warm_up(app, model, settings.threads)
        if _supervised():
            decoding.mute_decoders()
        _answer = answer

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def check() -> None:
        """Look in the supervising process for what is wrong, and listen to workers that find it."""
        try:
            read_card(Settings.read().bundle)
        except UserError as error:
            sys.exit(f"serve: error: {error}")
        sys.excepthook = _say
        os.environ[SUPERVISOR] = str(os.getpid())
        signal.signal(signal.SIGUSR1, _end)

    async def __is_ready__(self) -> bool:
        """Whether warm-up is over."""
        return _answer is not None


def _give_up(error: Exception) -> NoReturn:
    """End the service and not this worker alone, for BentoML would start the next one for ever.

    Parameters
    ----------
    error : Exception
        Why the worker does not start; raised again unless a sentence says it.
    """
    if not _supervised():
        raise error
    os.kill(os.getppid(), signal.SIGUSR1)
    if not isinstance(error, UserError):
        raise error
    os.write(2, f"serve: error: {error}\n".encode(errors="replace"))
    os._exit(1)  # an exception would be logged with all that called us


ADDRESS = {
    errno.EADDRINUSE: "in use already: stop what listens there, or choose another port",
    errno.EADDRNOTAVAIL: "not this machine's: choose another host",
    errno.EACCES: "for administrators: choose a port above 1023",
}
"""What is wrong with an address that cannot be listened on."""


def _say(kind: type[BaseException], error: BaseException, trace: "TracebackType | None") -> None:
    """Put into a sentence what the supervising process ends with, where it is a user's mistake."""
    if isinstance(error, OSError) and error.errno in ADDRESS and error.filename is None:
        sys.stderr.write(f"serve: error: the address is {ADDRESS[error.errno]}.\n")
    else:
        sys.__excepthook__(kind, error, trace)


def _supervised() -> bool:
    """Whether this is a worker of ``bentoml serve``, and not left behind by it."""
    return os.environ.get(SUPERVISOR) == str(os.getppid())


def _end(*_: object) -> None:
    """End the supervising process in good order, but not as if all were well."""
    atexit.register(os._exit, 1)
    signal.raise_signal(signal.SIGTERM)


class Direct(type(SoundClassifier)):  # type: ignore[misc]  # BentoML's Service
    """A service whose requests go past BentoML's middleware; start and stop stay its.

    Its time-out keeps a timer, and with it the request, for as long as a request may take, after
    it was answered: under load that is memory, 9 KB a request. And it answers a path with a line
    break in it itself, in plain text.
    """

    __slots__ = ()

    def to_asgi(self, is_main: bool = True) -> "ASGIApp":
        """Give the server BentoML's application for all but requests, and ours for these."""
        theirs = super().to_asgi(is_main)

        async def answer(scope: "Scope", receive: "Receive", send: "Send") -> None:
            await (application if scope["type"] == "http" else theirs)(scope, receive, send)

        return answer


# BentoML puts what is added as middleware inside its own
SoundClassifier.__class__ = Direct  # type: ignore[method-assign]
