"""Assemble the web application: routes, pages, error answers and request counts.

Everything that comes from outside is limited: the bytes of a request while they are read, the
samples of a clip while they are decoded, the seconds that both take, and the number of requests
in progress. A rejected request gets the reason in one sentence. The application does not need
BentoML; :mod:`pipeline.serving.service` runs it as a BentoML service.
"""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serving import pages, routes
from pipeline.serving.admission import Admission
from pipeline.serving.classifier import Classifier
from pipeline.serving.inference import Inference
from pipeline.serving.monitoring import Metrics
from pipeline.serving.prediction_log import PredictionLog
from pipeline.serving.schema import RejectedError
from pipeline.serving.settings import Settings


def make(
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
        The same application with its requests counted: serve this one.
    """
    card = classifier.card
    app = FastAPI(
        title=card["name"],
        version=str(card["version"]),
        description="Classifies sounds.",
        docs_url=None,
        redoc_url=None,
    )
    threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="inference")
    uploads = routes.Uploads(settings, Admission(settings), threads)
    inference = Inference(classifier, settings, metrics, log)
    app.include_router(routes.classification(uploads, inference, metrics))
    app.include_router(routes.model(card, settings))
    app.include_router(routes.operation(threads))
    pages.add(app)
    _add_errors(app, metrics)
    app.state.threads = threads
    return app, _counted(app, metrics)


def warm_up(app: FastAPI, classifier: Classifier, threads: int) -> None:
    """Make every worker thread classify once, and load what is otherwise loaded on first use."""
    import av  # noqa: F401  # the first clip from a phone would wait 0.1 s for it

    barrier = Barrier(threads)

    def work() -> None:
        barrier.wait()  # so that each thread gets exactly one of the tasks
        classifier.warm_up()

    for done in [app.state.threads.submit(work) for _ in range(threads)]:
        done.result()
    app.openapi()


def _add_errors(app: FastAPI, metrics: Metrics) -> None:
    def error(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"error": sentence}, status, headers=headers)

    @app.exception_handler(RejectedError)
    async def rejected(_: Request, rejection: RejectedError) -> JSONResponse:
        metrics.rejected(rejection.reason)
        headers = {"Retry-After": "1"} if rejection.status == 503 else None
        return error(rejection.status, str(rejection), headers)

    @app.exception_handler(RequestValidationError)
    async def invalid_query(_: Request, invalid: RequestValidationError) -> JSONResponse:
        metrics.rejected("query")
        problem = invalid.errors()[0]
        return error(422, f"The value of `{problem['loc'][-1]}` is not valid.")

    @app.exception_handler(HTTPException)
    async def other(_: Request, problem: HTTPException) -> JSONResponse:
        sentences = {
            404: "There is nothing at this address.",
            405: "This address does not support this method.",
        }
        sentence = sentences.get(problem.status_code, "The request cannot be answered.")
        return error(problem.status_code, sentence, problem.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody reads it

    @app.exception_handler(Exception)
    async def internal(_: Request, __: Exception) -> JSONResponse:
        return error(500, "The service failed to answer. Its log has the details.")


def _counted(app: FastAPI, metrics: Metrics) -> ASGIApp:
    """Count requests by route.

    A path that a client makes up must not become a time series, so it counts as "other". This is
    a plain function because BentoML sends a Starlette application only the requests that it has
    routes for, and answers all others itself.
    """

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            await app(scope, receive, send_noting_status)
        finally:
            route = getattr(scope.get("route"), "path", None)
            metrics.request(route or "other", status, time.perf_counter() - started)

    return counted
