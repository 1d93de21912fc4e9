"""Define the service's endpoints: classification, the model's description, probes and metrics."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, PlainTextResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pipeline.serving.admission import Admission
from pipeline.serving.bundle import EXAMPLES
from pipeline.serving.forms import Part, files_of, parse_form
from pipeline.serving.inference import Inference
from pipeline.serving.monitoring import Metrics, exposition
from pipeline.serving.schema import (
    Answer,
    Answers,
    Error,
    Example,
    FileAnswer,
    FileError,
    ModelCard,
    RejectedError,
)
from pipeline.serving.settings import Settings

T = TypeVar("T")

MEANINGS = {
    400: "The request is not a form, or the form has no file.",
    408: "The request took too long to arrive.",
    413: "The request is too large, or has too many files.",
    415: "The file is not audio in a supported format.",
    422: "The clip is too long or too short, holds no sound, or is too slow to decode; or the query"
    " is not valid.",
    503: "The service is busy. `Retry-After` says how many seconds to wait.",
}
"""Descriptions of the statuses of rejected requests."""


@dataclass(frozen=True)
class Uploads:
    """Receive uploaded files and work on them in a thread.

    Attributes
    ----------
    settings : Settings
    admission : Admission
    threads : ThreadPoolExecutor
    """

    settings: Settings
    admission: Admission
    threads: ThreadPoolExecutor

    async def receive(self, request: Request, field: str, work: Callable[[list[Part]], T]) -> T:
        """Read the files of a form field and return what `work` returns for them.

        Raises
        ------
        RejectedError
            If the request is too large, too slow or not a form, or if the service is busy.
        """
        async with self.admission.body(request) as body:
            content_type = request.headers.get("content-type", "")

            def parse_and_work() -> T:
                parts = parse_form(body, content_type, self.settings.max_files + 8)
                body.clear()
                return work(files_of(parts, field))

            async with self.admission.slot():
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self.threads, parse_and_work)

    def deadline(self) -> float:
        """Return when decoding the clips of a request has to end, on ``time.monotonic``."""
        return time.monotonic() + self.settings.max_decode_seconds


def classification(uploads: Uploads, inference: Inference, metrics: Metrics) -> APIRouter:
    """Make the routes that classify clips."""
    router = APIRouter(tags=["classify"])
    asked_windows = Query(
        description="Add a timeline of overlapping windows to the answer,"
        f" at most {uploads.settings.max_windows} of them."
    )
    _add_classify(router, uploads, inference, asked_windows)
    _add_classify_batch(router, uploads, inference, asked_windows, metrics)
    return router


def _add_classify(
    router: APIRouter, uploads: Uploads, inference: Inference, asked_windows: Any
) -> None:
    @router.post(
        "/classify",
        response_model=Answer,
        responses=_errors(400, 408, 413, 415, 422, 503),
        openapi_extra=_form("file", several=False),
        summary="Classify a clip",
    )
    async def classify(
        request: Request,
        windows: Annotated[bool, asked_windows] = False,
        picture: Annotated[
            bool, Query(description="Add waveform and spectrogram to the answer.")
        ] = False,
    ) -> Response:
        """Classify the clip in the form field `file`.

        The clip may have any supported audio format, sample rate and number of channels.
        """

        def work(files: list[Part]) -> Response:
            if len(files) > 1:
                raise RejectedError(
                    400, "The form has several files: send them to /classify_batch.", "form"
                )
            until = uploads.deadline()
            fields = inference.classify(files[0].content, until, windows=windows, picture=picture)
            return _json(Answer(**fields))

        return await uploads.receive(request, "file", work)


def _add_classify_batch(
    router: APIRouter,
    uploads: Uploads,
    inference: Inference,
    asked_windows: Any,
    metrics: Metrics,
) -> None:
    @router.post(
        "/classify_batch",
        response_model=Answers,
        responses=_errors(400, 408, 413, 422, 503),
        openapi_extra=_form("files", several=True),
        summary="Classify several clips",
    )
    async def classify_batch(
        request: Request, windows: Annotated[bool, asked_windows] = False
    ) -> Response:
        """Classify the clips in the form fields `files`.

        A clip that cannot be classified gets an error of its own and does not affect the others.
        """

        def work(files: list[Part]) -> Response:
            most = uploads.settings.max_files
            if len(files) > most:
                raise RejectedError(413, f"The form has more than {most} files.", "files")
            until = uploads.deadline()
            results = [_result(file, until, inference, metrics, windows=windows) for file in files]
            return _json(Answers(results=results))

        return await uploads.receive(request, "files", work)


def model_card(card: dict[str, Any], settings: Settings) -> ModelCard:
    """Return the description of the model that ``GET /model`` answers with."""
    own = set(ModelCard.model_fields) - {"limits", "examples"}
    return ModelCard(
        **{key: card[key] for key in own},
        limits=settings.limits(),
        examples=[
            Example(
                label=example["label"],
                url=f"/examples/{quote(example['file'])}",
                attribution=example["attribution"],
            )
            for example in card["examples"]
        ],
    )


def model(card: dict[str, Any], settings: Settings) -> APIRouter:
    """Make the routes that describe the model and serve its example clips."""
    router = APIRouter(tags=["model"])
    described = model_card(card, settings)
    names = [example["file"] for example in card["examples"]]
    files = {name: settings.bundle / EXAMPLES / name for name in names}

    @router.get("/model", summary="Describe the model")
    async def describe() -> ModelCard:
        return described

    @router.get(
        "/examples/{name}",
        response_class=FileResponse,
        responses={
            200: {"content": {"audio/wav": {}}, "description": "The clip."},
            206: {"content": {"audio/wav": {}}, "description": "The requested part of the clip."},
            416: {"content": {"text/plain": {}}, "description": "The clip has no such part."},
            "4XX": {"model": Error, "description": "There is no such clip."},
        },
        summary="Get an example clip",
    )
    async def example(name: str) -> FileResponse:
        if name not in files:  # only names from the list ever become paths
            raise HTTPException(404)
        return FileResponse(files[name], media_type="audio/wav")

    return router


def operation(threads: ThreadPoolExecutor) -> APIRouter:
    """Make the routes for probes and metrics."""
    router = APIRouter(tags=["operation"])

    @router.get(
        "/livez", response_class=PlainTextResponse, summary="Check that the service is running"
    )
    async def alive() -> str:
        return "\n"

    @router.get(
        "/readyz",
        response_class=PlainTextResponse,
        summary="Check that the service is ready: the model is loaded and warmed up",
    )
    async def ready() -> str:
        return "\n"

    @router.get("/metrics", response_class=PlainTextResponse, summary="Get metrics for Prometheus")
    async def figures() -> Response:
        loop = asyncio.get_running_loop()
        content, media_type = await loop.run_in_executor(threads, exposition)
        return Response(content, media_type=media_type)

    for path, probe in (("/livez", alive), ("/readyz", ready)):  # load balancers send HEAD
        router.add_api_route(path, probe, methods=["HEAD"], include_in_schema=False)
    return router


def _result(
    file: Part, until: float, inference: Inference, metrics: Metrics, *, windows: bool
) -> FileAnswer | FileError:
    name = file.filename or ""
    try:
        if not file.content:
            raise RejectedError(415, "The file is empty.", "format")
        fields = inference.classify(file.content, until, windows=windows, picture=False)
        return FileAnswer(file=name, **fields)
    except RejectedError as rejection:
        metrics.rejected(rejection.reason)
        return FileError(file=name, error=str(rejection))


def _json(answer: BaseModel) -> Response:
    """Serialise here, in the worker thread, so that FastAPI does not do it in the event loop."""
    return Response(answer.model_dump_json(), media_type="application/json")


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Error, "description": MEANINGS[status]} for status in statuses}


def _form(name: str, *, several: bool) -> dict[str, Any]:
    file: dict[str, Any] = {"type": "string", "format": "binary"}
    if several:
        file = {"type": "array", "items": file, "minItems": 1}
    schema = {"type": "object", "properties": {name: file}, "required": [name]}
    content = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}
