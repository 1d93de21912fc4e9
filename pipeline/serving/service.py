"""Run the application as a BentoML service: ``bentoml serve``.

BentoML provides the process, its worker, probes and the image; :mod:`pipeline.serving.app` answers
the requests. The process that supervises the worker also imports this module, so everything heavy
is imported when a worker starts.
"""

import atexit
import errno
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from pipeline.errors import UserError
from pipeline.serving.bundle import read_card
from pipeline.serving.settings import NAME, PROCESS_ENVIRONMENT, Settings

for variable, setting in PROCESS_ENVIRONMENT.items():  # before the libraries read them
    os.environ.setdefault(variable, setting)

import bentoml  # noqa: E402

if TYPE_CHECKING:
    from types import TracebackType

    from starlette.types import ASGIApp, Receive, Scope, Send


def _settings() -> Settings:
    """Read the settings; if they are wrong, use the defaults until the start reports the error."""
    try:
        return Settings.read()
    except UserError:
        return Settings()


if "uvicorn" in sys.modules:  # in a worker, whose server is made after this module is imported
    from pipeline.serving.connection import limit_headers

    limit_headers(_settings().max_arrival_seconds)

SUPERVISOR = "SERVICE_SUPERVISOR"
"""Environment variable: process id of the supervisor, which a worker signals if it cannot start."""

_app: "ASGIApp | None" = None


async def application(scope: "Scope", receive: "Receive", send: "Send") -> None:
    """Pass a request to this worker's application, which exists before any request arrives."""
    assert _app is not None  # noqa: S101
    await _app(scope, receive, send)


@bentoml.service(
    name=NAME,
    workers=1,
    traffic={"timeout": _settings().request_seconds},
    # BentoML's metrics have a time series for every path that a client makes up; ours do not
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    envs=[{"name": name, "value": value} for name, value in PROCESS_ENVIRONMENT.items()],
)
@bentoml.asgi_app(application, path="/")
class SoundClassifier:
    """Serve the bundle that ``python -m pipeline package`` wrote."""

    def __init__(self) -> None:
        try:
            self._start()
        except Exception as error:
            _give_up(error)

    def _start(self) -> None:
        from pipeline.serving import app, bundle, classifier, monitoring, prediction_log
        from pipeline.sound import decoding

        global _app  # noqa: PLW0603  # one service per process, and BentoML mounts it before this
        settings = Settings.read()
        model = classifier.Classifier.load(settings.bundle)
        reference = bundle.read_reference(settings.bundle)
        metrics = monitoring.Metrics(reference, settings.drift_predictions)
        log = prediction_log.PredictionLog(settings.prediction_log, metrics)
        made, counted = app.make(model, settings, metrics, log)
        app.warm_up(made, model, settings.threads)
        if _supervised():
            decoding.mute_decoders()
        _app = counted

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def check() -> None:
        """Check settings and bundle in the supervising process, and end when a worker signals."""
        try:
            read_card(Settings.read().bundle)
        except UserError as error:
            sys.exit(f"serve: error: {error}")
        sys.excepthook = _explain
        os.environ[SUPERVISOR] = str(os.getpid())
        signal.signal(signal.SIGUSR1, _end)

    async def __is_ready__(self) -> bool:
        """Whether warm-up is over."""
        return _app is not None


def _give_up(error: Exception) -> NoReturn:
    """End the whole service, because BentoML would start a new worker again and again.

    Parameters
    ----------
    error : Exception
        Why the worker cannot start. It is raised again unless it is a :class:`UserError`.
    """
    if not _supervised():
        raise error
    os.kill(os.getppid(), signal.SIGUSR1)
    if not isinstance(error, UserError):
        raise error
    os.write(2, f"serve: error: {error}\n".encode(errors="replace"))
    os._exit(1)  # an exception would be logged with a traceback


ADDRESS = {
    errno.EADDRINUSE: "is already in use: stop the program that uses it, or choose another port",
    errno.EADDRNOTAVAIL: "does not belong to this machine: choose another host",
    errno.EACCES: "is reserved for administrators: choose a port above 1023",
}
"""Reasons why the service cannot listen on an address, with remedies, by error number."""


def _explain(
    kind: type[BaseException], error: BaseException, trace: "TracebackType | None"
) -> None:
    """Print one sentence instead of a traceback if the service cannot listen on its address."""
    if isinstance(error, OSError) and error.errno in ADDRESS and error.filename is None:
        sys.stderr.write(f"serve: error: the address {ADDRESS[error.errno]}.\n")
    else:
        sys.__excepthook__(kind, error, trace)


def _supervised() -> bool:
    """Whether this process is a worker of a running ``bentoml serve``."""
    return os.environ.get(SUPERVISOR) == str(os.getppid())


def _end(*_: object) -> None:
    """End the supervising process in an orderly way, but with status 1."""
    atexit.register(os._exit, 1)
    signal.raise_signal(signal.SIGTERM)


class Direct(type(SoundClassifier)):  # type: ignore[misc]  # BentoML's Service
    """A service whose requests bypass BentoML's middleware; BentoML still starts and stops it.

    BentoML's time limit keeps a timer for each request until the limit has passed, even after the
    request was answered. The timer keeps the request in memory: 9 KB each. BentoML also answers a
    path with a line break itself, in plain text.
    """

    __slots__ = ()

    def to_asgi(self, is_main: bool = True) -> "ASGIApp":
        """Return an application that sends requests to ours and everything else to BentoML's."""
        theirs = super().to_asgi(is_main)

        async def answer(scope: "Scope", receive: "Receive", send: "Send") -> None:
            await (application if scope["type"] == "http" else theirs)(scope, receive, send)

        return answer


# middleware added through BentoML's own means would run inside its middleware
SoundClassifier.__class__ = Direct  # type: ignore[method-assign]
