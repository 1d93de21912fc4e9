"""The service's HTTP: what it takes, what it answers, what it refuses and how.

Everything from outside is measured before it is used: bytes while they are read, samples while
they are decoded, seconds by the clock, requests at the door. What is refused gets one sentence.
The application needs no BentoML; :mod:`pipeline.serving.service` puts it into one.
"""

import asyncio
import base64
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, unquote_to_bytes

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serving.bundle import EXAMPLES
from pipeline.serving.classifier import Classifier, Prediction, Silence, envelope
from pipeline.serving.monitoring import Metrics, PredictionLog, exposition
from pipeline.serving.settings import Settings
from pipeline.sound import decoding

logger = logging.getLogger("bentoml.sound")

T = TypeVar("T")

PAGE = Path(__file__).parent / "page"
POINTS = 600
"""Pairs that a waveform is drawn from."""

HEADER_BYTES = 4096
"""Of a part of a form."""

EXTENDED = re.compile(rb""";\s*filename\*\s*=\s*"?utf-8'[^']*'([^;"\s]*)""", re.IGNORECASE)
"""A file name as RFC 5987 has it: not for forms, but urllib3 before 2 sends ``ö.wav`` so."""

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none';"
    " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""No request of the page leaves the host, whatever is in it."""


# ---- answers


class Window(BaseModel):
    """A stretch of the clip."""

    start: float = Field(description="Seconds from the start of the clip.")
    end: float
    label: str
    probability: float
    probabilities: dict[str, float]


class Spectrogram(BaseModel):
    """What the model saw of the first window that it analysed."""

    bands: int
    frames: int
    kind: str = Field(description="logmel, mfcc or stft.")
    low: float = Field(description="The value that 0 stands for; dB, but for mfcc.")
    high: float = Field(description="The value that 255 stands for.")
    seconds: float
    values: str = Field(
        description="Base64 of bands x frames bytes, row by row, the lowest band first."
    )


class Picture(BaseModel):
    """What to draw the clip from."""

    waveform: list[tuple[float, float]] = Field(
        description=f"Lowest and highest sample of at most {POINTS} equal stretches of the clip."
    )
    spectrogram: Spectrogram


class ModelName(BaseModel):
    """Which model answered."""

    name: str
    version: str


class Classification(BaseModel):
    """What the model says of a clip."""

    label: str = Field(description="The most probable one; see `known`.")
    probability: float
    known: bool = Field(
        description="Whether `probability` reaches the model's threshold. If not, take the clip for"
        " none of the labels: it is less like them than nearly all clips that the threshold was set"
        " on. With windows: whether that of any window does."
    )
    probabilities: dict[str, float] = Field(
        description="Of all labels, the highest first; the mean over the windows."
    )
    seconds: float = Field(description="Of sound that was analysed.")
    duration: float = Field(description="Of the clip, in seconds.")
    model: ModelName
    windows: list[Window] | None = Field(
        None,
        description="If asked for: windows half a window apart, without those that are silent.",
    )


class Answer(Classification):
    """The answer for one clip."""

    picture: Picture | None = Field(None, description="If asked for.")


class FileAnswer(Classification):
    """The answer for one of several clips."""

    file: str = Field(description="Its name, as it was sent.")


class FileError(BaseModel):
    """Why there is no answer for one of several clips."""

    file: str
    error: str


class Answers(BaseModel):
    """One result a file, in the order in which they were sent."""

    results: list[FileAnswer | FileError]


class Example(BaseModel):
    """A clip to try."""

    label: str
    url: str


class ModelCard(BaseModel):
    """The model that answers."""

    name: str
    version: str
    aliases: list[str]
    labels: list[str]
    threshold: float = Field(description="The probability from which a label counts as known.")
    description: str
    metrics: dict[str, float] = Field(description="On test clips that it had not seen.")
    dataset: dict[str, str | None]
    features: dict[str, Any]
    lineage: dict[str, str]
    limits: dict[str, float] = Field(description="Of what the service takes.")
    examples: list[Example]


class Error(BaseModel):
    """What went wrong, in one sentence."""

    error: str


class Refusal(Exception):  # noqa: N818  # no fault of ours
    """A request, or a file of it, that gets no answer.

    Parameters
    ----------
    status : int
    sentence : str
    reason : str
        One of :data:`pipeline.serving.monitoring.REASONS`.
    """

    def __init__(self, status: int, sentence: str, reason: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason


# ---- forms


@dataclass(frozen=True)
class Part:
    """A part of a form; `filename` is None when it is not a file, and is never used as a path."""

    name: str
    filename: str | None
    content: bytes


def parse_form(body: bytearray, content_type: str, most: int) -> list[Part]:
    """Take a multipart form apart (RFC 7578).

    By hand, because the whole body is there and its boundaries can be found with a search: a
    streaming parser takes it byte by byte where somebody sends what is almost a boundary.

    Parameters
    ----------
    body : bytearray
    content_type : str
        The request's header.
    most : int
        Parts that are read.

    Returns
    -------
    list of Part

    Raises
    ------
    Refusal
        400 when it is not a whole form, 413 when it has more parts.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind.lower() != b"multipart/form-data" or not boundary:
        raise Refusal(400, "The request is not a form with a file (multipart/form-data).", "form")
    mark = b"--" + boundary
    # the first boundary may stand at the very beginning, all others begin a line
    place = 0 if body.startswith(mark) else body.find(b"\r\n" + mark) + 2
    broken = Refusal(400, "The form is damaged: it is cut off or not well-formed.", "form")
    if place == 1:
        raise broken
    parts: list[Part] = []
    while True:
        after = place + len(mark)
        if body[after : after + 2] == b"--":
            return parts
        line = body.find(b"\r\n", after, after + 100)
        head = body.find(b"\r\n\r\n", line, line + HEADER_BYTES)
        end = body.find(b"\r\n" + mark, head + 2)
        if min(line, head, end) < 0 or body[after:line].strip():
            raise broken
        if len(parts) == most:
            raise Refusal(413, f"The form has more than {most} parts.", "files")
        start = head + 4
        content = bytes(memoryview(body)[start : max(start, end)])
        parts.append(_part(bytes(body[line:head]), content))
        place = end + 2


def _part(head: bytes, content: bytes) -> Part:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            _, options = parse_options_header(value.strip())
            filename = options.get(b"filename")
            extended = EXTENDED.search(value)
            if filename is None and extended:
                filename = unquote_to_bytes(extended[1])
            return Part(
                name=options.get(b"name", b"").decode("utf-8", "replace"),
                filename=None if filename is None else filename.decode("utf-8", "replace"),
                content=content,
            )
    return Part("", None, content)


# ---- the door


class Door:
    """Lets in so many requests at a time, has so many more wait a moment, and sends others away.

    Parameters
    ----------
    settings : Settings
    """

    PATIENCE = 2.0
    """Seconds of waiting."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._places = asyncio.Semaphore(settings.max_concurrent)
        self._waiting = 0
        self._held = 0

    @asynccontextmanager
    async def work(self) -> AsyncIterator[None]:
        """Take one of the places.

        Raises
        ------
        Refusal
            503 when there is none.
        """
        if not self._places.locked():
            await self._places.acquire()
        elif self._waiting >= 4 * self._settings.max_concurrent:
            raise self._busy()
        else:
            self._waiting += 1
            try:
                await asyncio.wait_for(self._places.acquire(), self.PATIENCE)
            except TimeoutError:
                raise self._busy() from None
            finally:
                self._waiting -= 1
        try:
            yield
        finally:
            self._places.release()

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytearray]:
        """Read a request's body; what all of them hold together is bounded.

        Raises
        ------
        Refusal
            413 when it is too large, 503 when too much is held already, 408 when it is slow.
        """
        most = self._settings.max_bytes
        body = bytearray()
        held = 0
        try:
            try:
                async with asyncio.timeout(self._settings.max_arrival_seconds):
                    if _content_length(request) > most:
                        await self._turn_away(request)
                    async for chunk in request.stream():
                        if self._held + len(chunk) > self._settings.max_concurrent * most:
                            raise self._busy()
                        self._held += len(chunk)
                        held += len(chunk)
                        body += chunk
                        if len(body) > most:
                            await self._turn_away(request)
            except TimeoutError:
                raise Refusal(408, "The request took too long to arrive.", "slow") from None
            yield body
        finally:
            self._held -= held

    async def _turn_away(self, request: Request) -> None:
        """Refuse a body, after letting it arrive for a while.

        Whoever is still sending when the connection closes may never see the answer.
        """
        most = self._settings.max_bytes
        if _content_length(request) <= 5 * most and "expect" not in request.headers:
            thrown_away = 0
            async for chunk in request.stream():
                thrown_away += len(chunk)
                if thrown_away > 5 * most:
                    break
        raise Refusal(413, f"The request is larger than {most / 1e6:g} MB.", "size")

    def _busy(self) -> Refusal:
        return Refusal(503, "The service is busy: try again in a moment.", "busy")


def _content_length(request: Request) -> int:
    text = request.headers.get("content-length", "")
    return int(text) if text.isdecimal() else 0


# ---- one clip


class Desk:
    """Decodes and classifies, in a worker thread.

    Parameters
    ----------
    classifier : Classifier
    settings : Settings
    metrics : Metrics
    log : PredictionLog
    """

    def __init__(
        self, classifier: Classifier, settings: Settings, metrics: Metrics, log: PredictionLog
    ) -> None:
        self.classifier = classifier
        self._settings = settings
        self._metrics = metrics
        self._log = log
        card = classifier.card
        self._model = ModelName(name=card["name"], version=str(card["version"]))

    def classify(
        self, content: bytes, until: float, *, windows: bool, picture: bool
    ) -> dict[str, Any]:
        """Answer for one clip.

        Parameters
        ----------
        content : bytes
            An audio file.
        until : float
            When decoding has to end, by ``time.monotonic``.
        windows, picture : bool
            What is asked for besides.

        Returns
        -------
        dict
            The fields of :class:`Answer`.

        Raises
        ------
        Refusal
            When it cannot be decoded, is longer than allowed, or is silent.
        """
        settings, spec = self._settings, self.classifier.spec
        limits = decoding.Limits(settings.max_seconds, max(0.0, until - time.monotonic()))
        try:
            waveform = decoding.load(content, spec.sample_rate, limits=limits)
            found = self.classifier.predict(waveform, settings.max_windows, overlapping=windows)
        except decoding.SlowError as error:
            raise Refusal(422, str(error), "slow") from None
        except decoding.LimitError as error:
            raise Refusal(422, str(error), "length") from None
        except decoding.AudioError as error:
            raise Refusal(415, str(error), "format") from None
        except Silence as error:
            raise Refusal(422, str(error), "silence") from None
        duration = waveform.size / spec.sample_rate
        answer = {
            **self._probabilities(found.probabilities),
            # several sounds one after the other are less sure as a mean than each is by itself
            "known": self.classifier.knows(found.windows if windows else found.probabilities),
            "seconds": round(float(min(duration, found.starts[-1] + spec.seconds)), 3),
            "duration": round(duration, 3),
            "model": self._model,
            "windows": self._windows(found, duration) if windows else None,
        }
        if picture:
            answer["picture"] = Picture(
                waveform=envelope(waveform, POINTS), spectrogram=self._spectrogram(found)
            )
        values = {
            "label": answer["label"],
            "confidence": answer["probability"],
            **{name: round(value, 4) for name, value in found.summary.items()},
            "duration": answer["duration"],
            "version": self._model.version,
        }
        self._metrics.prediction(values)
        self._log.write(values)
        return answer

    def _probabilities(self, row: np.ndarray) -> dict[str, Any]:
        order = np.argsort(-row, kind="stable")
        labels = self.classifier.labels
        probabilities = {labels[i]: round(float(row[i]), 6) for i in order}
        label, probability = next(iter(probabilities.items()))
        return {"label": label, "probability": probability, "probabilities": probabilities}

    def _windows(self, found: Prediction, duration: float) -> list[Window]:
        seconds = self.classifier.spec.seconds
        return [
            Window(
                start=round(float(start), 3),
                end=round(float(min(start + seconds, max(duration, start))), 3),
                **self._probabilities(row),
            )
            for start, row in zip(found.starts, found.windows, strict=True)
        ]

    def _spectrogram(self, found: Prediction) -> Spectrogram:
        spec, features = self.classifier.spec, found.features
        if spec.kind == "mfcc":
            low, high = float(features.min()), float(features.max())
        else:
            low, high = -spec.top_db, 0.0
        scaled = (features - low) * (255 / max(high - low, 1e-9))
        content = scaled.round().clip(0, 255).astype(np.uint8).tobytes()
        return Spectrogram(
            bands=features.shape[0],
            frames=features.shape[1],
            kind=spec.kind,
            low=low,
            high=high,
            seconds=spec.seconds,
            values=base64.b64encode(content).decode("ascii"),
        )


# ---- the application


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    meanings = {
        400: "Not a form, or without the file.",
        408: "The request took too long to arrive.",
        413: "Too large, or too many files.",
        415: "Not sound in a format that can be read.",
        422: "Too long, silent, too slow to decode, or a query that is not understood.",
        503: "Too busy; `Retry-After` says when to try again.",
    }
    return {status: {"model": Error, "description": meanings[status]} for status in statuses}


def _form(name: str, *, several: bool) -> dict[str, Any]:
    file: dict[str, Any] = {"type": "string", "format": "binary"}
    if several:
        file = {"type": "array", "items": file, "minItems": 1}
    schema = {"type": "object", "properties": {name: file}, "required": [name]}
    content = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


def make(  # noqa: PLR0915  # the routes, one after the other
    classifier: Classifier, settings: Settings, metrics: Metrics, log: PredictionLog
) -> tuple[FastAPI, ASGIApp]:
    """Make the application.

    Parameters
    ----------
    classifier : Classifier
    settings : Settings
    metrics : Metrics
    log : PredictionLog

    Returns
    -------
    FastAPI
        The application.
    ASGIApp
        The same with its requests counted; this is what to serve.
    """
    card = classifier.card
    app = FastAPI(
        title=card["name"],
        version=str(card["version"]),
        description="Classifies environmental sounds.",
        docs_url=None,
        redoc_url=None,
    )
    door = Door(settings)
    desk = Desk(classifier, settings, metrics, log)
    threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="desk")
    folder = settings.bundle / EXAMPLES
    examples = {name: folder / name for name in card["examples"].values()}
    model = ModelCard(
        **{key: card[key] for key in ModelCard.model_fields if key not in ("limits", "examples")},
        limits=settings.limits(),
        examples=[
            Example(label=label, url=f"/examples/{quote(name)}")
            for label, name in card["examples"].items()
        ],
    )
    asked_windows = Query(
        description="Answer with a timeline of overlapping windows, of at most"
        f" {settings.max_windows} windows."
    )

    async def in_thread(work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, work)

    async def receive_files(request: Request, name: str, work: Callable[[list[Part]], T]) -> T:
        async with door.body(request) as body:
            content_type = request.headers.get("content-type", "")

            def parse_and_work() -> T:
                parts = parse_form(body, content_type, settings.max_files + 8)
                body.clear()
                return work(_files(parts, name))

            async with door.work():
                return await in_thread(parse_and_work)

    @app.post(
        "/classify",
        response_model=Answer,
        responses=_errors(400, 408, 413, 415, 422, 503),
        openapi_extra=_form("file", several=False),
        summary="Classify a clip",
        tags=["classify"],
    )
    async def classify(
        request: Request,
        windows: Annotated[bool, asked_windows] = False,
        picture: Annotated[
            bool, Query(description="Answer with waveform and spectrogram as well.")
        ] = False,
    ) -> Response:
        """Classify the clip in the field `file`: any format, sample rate and channel count."""

        def work(files: list[Part]) -> Response:
            if len(files) > 1:
                raise Refusal(
                    400, "The form has several files: /classify_batch takes them.", "form"
                )
            until = time.monotonic() + settings.max_decode_seconds
            found = desk.classify(files[0].content, until, windows=windows, picture=picture)
            return _json(Answer(**found))

        return await receive_files(request, "file", work)

    @app.post(
        "/classify_batch",
        response_model=Answers,
        responses=_errors(400, 408, 413, 422, 503),
        openapi_extra=_form("files", several=True),
        summary="Classify several clips",
        tags=["classify"],
    )
    async def classify_batch(
        request: Request, windows: Annotated[bool, asked_windows] = False
    ) -> Response:
        """Classify the clips in the fields `files`; one that cannot be gets an error of its own."""

        def work(files: list[Part]) -> Response:
            if len(files) > settings.max_files:
                raise Refusal(413, f"More than {settings.max_files} files at a time.", "files")
            until = time.monotonic() + settings.max_decode_seconds
            results: list[FileAnswer | FileError] = []
            for file in files:
                name = file.filename or ""
                try:
                    if not file.content:
                        raise Refusal(415, "The file is empty.", "format")
                    found = desk.classify(file.content, until, windows=windows, picture=False)
                    results.append(FileAnswer(file=name, **found))
                except Refusal as refusal:
                    metrics.rejected(refusal.reason)
                    results.append(FileError(file=name, error=str(refusal)))
            return _json(Answers(results=results))

        return await receive_files(request, "files", work)

    @app.get("/model", summary="The model that answers", tags=["model"])
    async def describe() -> ModelCard:
        return model

    @app.get(
        "/examples/{name}",
        response_class=FileResponse,
        responses={
            200: {"content": {"audio/wav": {}}, "description": "A clip."},
            206: {"content": {"audio/wav": {}}, "description": "The part that was asked for."},
            416: {"content": {"text/plain": {}}, "description": "It has no such part."},
            "4XX": {"model": Error, "description": "There is no such clip."},
        },
        summary="A clip to try",
        tags=["model"],
    )
    async def example(name: str) -> FileResponse:
        if name not in examples:  # a name that is not in the list is never looked for
            raise HTTPException(404)
        return FileResponse(examples[name], media_type="audio/wav")

    @app.get(
        "/livez", response_class=PlainTextResponse, summary="Whether it runs", tags=["operation"]
    )
    async def alive() -> str:
        return "\n"

    @app.get(
        "/readyz",
        response_class=PlainTextResponse,
        summary="Whether it answers: it does not before it is warm",
        tags=["operation"],
    )
    async def ready() -> str:
        return "\n"

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        summary="Figures for Prometheus",
        tags=["operation"],
    )
    async def figures() -> Response:
        content, media_type = await in_thread(exposition)
        return Response(content, media_type=media_type)

    for path, probe in (("/livez", alive), ("/readyz", ready)):  # balancers ask without a body
        app.add_api_route(path, probe, methods=["HEAD"], include_in_schema=False)

    _add_pages(app)
    _add_errors(app, metrics)
    app.state.threads = threads
    return app, _counted(app, metrics)


def warm_up(app: FastAPI, classifier: Classifier, threads: int) -> None:
    """Have every worker thread do its work once, and load what is only loaded when needed."""
    from threading import Barrier

    import av  # noqa: F401  # 0.1 s that the first clip of a phone would wait for

    barrier = Barrier(threads)

    def work() -> None:
        barrier.wait()  # or one thread would do it for all
        classifier.warm_up()

    for done in [app.state.threads.submit(work) for _ in range(threads)]:
        done.result()
    app.openapi()


def _json(answer: BaseModel) -> Response:
    """Serialise here, in the worker thread, and not a second time in FastAPI."""
    return Response(answer.model_dump_json(), media_type="application/json")


def _files(parts: list[Part], name: str) -> list[Part]:
    """Take the files of one field.

    Raises
    ------
    Refusal
        When there are none.
    """
    named = [part for part in parts if part.name == name]
    if not named:
        raise Refusal(400, f"The form has no field `{name}` with a file.", "form")
    files = [part for part in named if part.filename is not None]
    if len(files) < len(named):
        raise Refusal(400, f"The field `{name}` holds text and not a file.", "form")
    if len(files) == 1 and not files[0].content:
        raise Refusal(400, "The file is empty.", "form")
    return files


def _add_pages(app: FastAPI) -> None:
    """Add the page, Swagger and what they are made of, all from this host."""
    page = StaticFiles(directory=PAGE, check_dir=False)
    origin = getattr(find_spec("bentoml"), "origin", None) or "."
    swagger = Path(origin).parent / "_internal" / "server" / "static_content"

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def index(request: Request) -> Response:
        answer = await page.get_response("index.html", request.scope)
        answer.headers["Content-Security-Policy"] = POLICY
        answer.headers["Permissions-Policy"] = "microphone=(self)"
        return answer

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        answer = get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=f"{app.title}: API",
            swagger_js_url="/swagger/swagger-ui-bundle.js",
            swagger_css_url="/swagger/swagger-ui.css",
            swagger_favicon_url="/swagger/favicon-light-32x32.png",
            swagger_ui_parameters={"validatorUrl": None},
        )
        # Swagger is set up by a script in the page itself, and styles its parts one by one
        answer.headers["Content-Security-Policy"] = (
            f"{POLICY}; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'"
        )
        return answer

    @app.get("/docs.json", include_in_schema=False)
    async def schema() -> JSONResponse:
        return JSONResponse(app.openapi())

    app.mount("/page", page)
    app.mount("/swagger", StaticFiles(directory=swagger, check_dir=False))


def _add_errors(app: FastAPI, metrics: Metrics) -> None:
    def error(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"error": sentence}, status, headers=headers)

    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> JSONResponse:
        metrics.rejected(refusal.reason)
        headers = {"Retry-After": "1"} if refusal.status == 503 else None
        return error(refusal.status, str(refusal), headers)

    @app.exception_handler(RequestValidationError)
    async def not_understood(_: Request, invalid: RequestValidationError) -> JSONResponse:
        metrics.rejected("query")
        problem = invalid.errors()[0]
        return error(422, f"The value of `{problem['loc'][-1]}` is not understood.")

    @app.exception_handler(HTTPException)
    async def other(_: Request, problem: HTTPException) -> JSONResponse:
        sentences = {404: "There is nothing here.", 405: "This is not done with this method."}
        sentence = sentences.get(problem.status_code, "The request cannot be answered.")
        return error(problem.status_code, sentence, problem.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody reads it

    @app.exception_handler(Exception)
    async def ours(_: Request, __: Exception) -> JSONResponse:
        return error(500, "Something went wrong here, and it is in the log.")


def _counted(app: FastAPI, metrics: Metrics) -> ASGIApp:
    """Count requests by route, for a path that somebody makes up must not become a time series.

    A plain function besides: BentoML gives a Starlette application only those requests that it
    has routes for and answers the others itself, in its own way.
    """

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            await app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", None)
            metrics.request(route or "other", status, time.perf_counter() - started)

    return counted
