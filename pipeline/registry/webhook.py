"""A new champion starts the deployment: from MLflow's webhook to GitHub's `repository_dispatch`.

    python -m pipeline webhook create https://hooks.example.org/mlflow
    python -m pipeline webhook test
    python -m pipeline webhook serve --repository OWNER/NAME

MLflow can only send a message of its own form, signed; GitHub only takes another one, with a
token. The receiver stands between: it checks the signature and passes on which version it is.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow.exceptions import MlflowException

from pipeline import params
from pipeline.errors import UserError
from pipeline.registry import champions
from pipeline.tracking import store

NAME = "champion"
"""Of the webhook, and the `event_type` that starts the workflow."""

EVENT = "model_version_alias.created"

SECRET, TOKEN, API = "MLFLOW_WEBHOOK_SECRET", "GITHUB_TOKEN", "GITHUB_API_URL"
DEFAULT_API = "https://api.github.com"

MAX_AGE = 300
"""Seconds after which a signed message is not taken any more, so that nobody can repeat it."""

LARGEST = 100_000
"""Bytes of a message."""

Dispatch = Callable[[dict[str, str]], None]
"""Passes on name and version; raises OSError when that fails."""


class RefusedError(Exception):
    """Why a message is not taken."""


@dataclass(frozen=True)
class Receiver:
    """Takes MLflow's messages."""

    secret: str
    model: str
    dispatch: Dispatch
    clock: Callable[[], float] = time.time
    passed_on: dict[str, float] = field(default_factory=dict)
    """When, by the id of the delivery, so that a message that comes again starts nothing."""

    def receive(self, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        """Check a message and pass it on if it tells of a new champion.

        Parameters
        ----------
        headers : mapping
            By their names in lower case.
        body : bytes

        Returns
        -------
        status : int
            Of the answer. MLflow sends a message again that got a 502.
        said : str
        """
        now = self.clock()
        try:
            delivery = verify(headers, body, self.secret, now)
        except RefusedError as error:
            return 401, f"refused: {error}"
        try:
            champion = new_champion(body, self.model)
        except RefusedError as error:
            return 400, f"refused: {error}"
        if champion is None:
            return 200, "nothing to do: it is not about a new champion"
        for known, when in list(self.passed_on.items()):
            if now - when > 2 * MAX_AGE:  # by then its time refuses it
                self.passed_on.pop(known, None)
        if delivery in self.passed_on:
            return 200, "nothing to do: it has been passed on already"
        try:
            self.dispatch(champion)
        except OSError as error:
            return 502, f"GitHub did not take it: {getattr(error, 'code', '') or error}"
        self.passed_on[delivery] = now
        return 202, f"passed on: {champion['model']} version {champion['version']}"


def verify(headers: Mapping[str, str], body: bytes, secret: str, now: float) -> str:
    """Check that MLflow has signed a message, and lately.

    The signature is an HMAC-SHA256 of id, time and body, as MLflow's documentation of webhooks
    defines it.

    Returns
    -------
    str
        The delivery's id, the same when it is sent again.

    Raises
    ------
    RefusedError
        When it has not.
    """
    try:
        delivery, sent, signature = (
            headers[f"x-mlflow-{key}"] for key in ("delivery-id", "timestamp", "signature")
        )
    except KeyError as missing:
        raise RefusedError(f"there is no header {missing}") from None
    signed = f"{delivery}.{sent}.".encode() + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    expected = f"v1,{base64.b64encode(digest).decode()}"
    if not hmac.compare_digest(expected.encode(), signature.encode()):
        raise RefusedError("the signature is wrong")
    if not re.fullmatch("[0-9]{1,12}", sent):
        raise RefusedError("its time is no number of seconds")
    if abs(now - int(sent)) > MAX_AGE:
        raise RefusedError("it is too old")
    return delivery


def new_champion(body: bytes, model: str) -> dict[str, str] | None:
    """Read which version of `model` became champion, if that is what a message is about.

    Raises
    ------
    RefusedError
        When it has not the form of MLflow's messages.
    """
    try:
        message = json.loads(body)
        event = f"{message['entity']}.{message['action']}"
        data = message["data"]
        if (event, data.get("name"), data.get("alias")) != (EVENT, model, champions.CHAMPION):
            return None
        return {"model": model, "version": str(data["version"])}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise RefusedError("it is no message of MLflow's") from None


def to_github(repository: str, token: str, api: str = DEFAULT_API) -> Dispatch:
    """Make what starts a repository's workflows.

    Parameters
    ----------
    repository : str
        OWNER/NAME.
    token : str
        With write access to the repository's contents.
    api : str

    Returns
    -------
    callable
    """

    def dispatch(champion: dict[str, str]) -> None:
        request = urllib.request.Request(  # noqa: S310  # the operator's address
            f"{api.rstrip('/')}/repos/{repository}/dispatches",
            data=json.dumps({"event_type": NAME, "client_payload": champion}).encode(),
            headers={
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/json",
                "X-GitHub-Api-Version": "2022-11-28",
            },
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=20):  # noqa: S310
            pass

    return dispatch


def application(receiver: Receiver) -> Any:
    """Make the receiver's web application: ``POST /`` for MLflow, ``GET /livez`` for probes."""
    from fastapi import FastAPI, Request
    from fastapi.concurrency import run_in_threadpool
    from fastapi.responses import PlainTextResponse

    made = FastAPI(title="From MLflow to GitHub", docs_url=None, redoc_url=None, openapi_url=None)

    async def receive(request: Request) -> PlainTextResponse:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LARGEST:
                return PlainTextResponse("refused: it is too large", 413)
        status, said = await run_in_threadpool(receiver.receive, request.headers, body)
        print(f"webhook: {status} {said}", flush=True)
        return PlainTextResponse(said, status)

    async def live() -> PlainTextResponse:
        return PlainTextResponse("ok")

    made.add_api_route("/", receive, methods=["POST"])
    made.add_api_route("/livez", live, methods=["GET"])
    return made


def create(url: str) -> str:
    """Tell the MLflow server to send a message when an alias is set; again, it is changed."""
    client = store.connect()
    if not store.uri().startswith("http"):
        raise UserError(
            f"the MLflow store at {store.address()} is no server, and only a server sends"
            " webhooks: set MLFLOW_TRACKING_URI to one."
        )
    settings = {
        "url": url,
        "events": [EVENT],
        "secret": needed(SECRET, "what signs the messages; the receiver has to have the same"),
        "description": "starts the deployment of a new champion",
        "status": "ACTIVE",
    }
    known = _find(client)
    try:
        if known:
            client.update_webhook(known.webhook_id, **settings)
        else:
            client.create_webhook(name=NAME, **settings)
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        raise UserError(f"MLflow does not take {url}: {error.message}") from None
    return f"{store.address()} tells {url} of a new champion; it notices within a minute"


def test() -> str:
    """Let the MLflow server send a message that is only an example."""
    client = store.connect()
    known = _find(client)
    if known is None:
        raise UserError("there is no webhook: make it with `python -m pipeline webhook create`.")
    result = client.test_webhook(known.webhook_id)
    if not result.success:
        said = result.error_message or f"status {result.response_status}, {result.response_body}"
        raise UserError(f"{known.url} did not take the message: {said}")
    return f"{known.url} took the message: {result.response_body}"


def serve(repository: str, host: str, port: int) -> str:
    """Run the receiver until it is stopped."""
    import uvicorn

    token = needed(TOKEN, "with write access to the repository's contents")
    secret = needed(SECRET, "the same as where the webhook was created")
    api = os.environ.get(API) or DEFAULT_API
    receiver = Receiver(secret, params.load().register_.name, to_github(repository, token, api))
    print(f"webhook: listening on {host}:{port}, for {repository}", flush=True)
    uvicorn.run(application(receiver), host=host, port=port, log_level="warning")
    return "stopped"


def needed(name: str, what: str) -> str:
    """Read a secret from the environment.

    Raises
    ------
    UserError
        When it is not set.
    """
    value = os.environ.get(name)
    if not value:
        raise UserError(f"{name} is not set: {what}.")
    return value


def _find(client: Any) -> Any:
    page = client.list_webhooks()
    while True:
        for webhook in page:
            if webhook.name == NAME:
                return webhook
        if not page.token:
            return None
        page = client.list_webhooks(page_token=page.token)


def run(options: argparse.Namespace) -> str:
    """Do what the command line says.

    Returns
    -------
    str
        The closing line.
    """
    if options.what == "create":
        return create(options.url)
    if options.what == "test":
        return test()
    return serve(options.repository, options.host, options.port)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m pipeline webhook``."""
    commands = parser.add_subparsers(dest="what", required=True)
    creating = commands.add_parser("create", help="tell the MLflow server where to send")
    creating.add_argument("url", help="of the receiver, https")
    commands.add_parser("test", help="let the MLflow server send an example")
    serving = commands.add_parser("serve", help="run the receiver")
    serving.add_argument("--repository", required=True, help="OWNER/NAME on GitHub")
    serving.add_argument("--host", default="127.0.0.1")
    serving.add_argument("--port", type=int, default=8090)
