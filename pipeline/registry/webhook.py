"""Start a deployment for each new champion: pass the MLflow server's webhook on to GitHub.

    python -m pipeline webhook create https://hooks.example.org/
    python -m pipeline webhook test
    python -m pipeline webhook serve --repository OWNER/NAME

``create`` makes the MLflow server send a signed message to this address for each new champion.
``serve`` runs the receiver at this address: it checks the signature and sends GitHub a
`repository_dispatch` event with the name and version of the model. Both read the environment
variable ``MLFLOW_WEBHOOK_SECRET``; ``serve`` also needs ``GITHUB_TOKEN``.
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
from pipeline.registry import champions, names
from pipeline.tracking import store

NAME = "champion"
"""Name of the webhook, and the `event_type` that starts the workflow."""

EVENT = "model_version_alias.created"

SECRET, TOKEN, API = "MLFLOW_WEBHOOK_SECRET", "GITHUB_TOKEN", "GITHUB_API_URL"
DEFAULT_API = "https://api.github.com"

MAX_AGE = 300
"""Maximum age of a signed message in seconds, so that nobody can replay an old one."""

LARGEST = 100_000
"""Maximum size of a message, in bytes."""

Dispatch = Callable[[dict[str, str]], None]
"""Sends name and version to GitHub; raises OSError if that fails."""


class RejectedError(Exception):
    """A message is rejected; the text gives the reason."""


@dataclass(frozen=True)
class Receiver:
    """Receives MLflow's messages."""

    secret: str
    models: tuple[str, ...]
    """Names of the registered models whose champions are deployed."""
    dispatch: Dispatch
    clock: Callable[[], float] = time.time
    forwarded: dict[str, float] = field(default_factory=dict)
    """Time of every forwarded message, by its id, so that a repeated message starts nothing."""

    def receive(self, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        """Check a message and forward it if it announces a new champion.

        Parameters
        ----------
        headers : mapping
            The names in lower case.
        body : bytes

        Returns
        -------
        status : int
            Status of the response. After a 502 MLflow sends the message again.
        text : str
            Text of the response.
        """
        now = self.clock()
        try:
            delivery = verify(headers, body, self.secret, now)
        except RejectedError as error:
            return 401, f"rejected: {error}"
        try:
            champion = new_champion(body, self.models)
        except RejectedError as error:
            return 400, f"rejected: {error}"
        if champion is None:
            return 200, "nothing to do: the message does not announce a new champion"
        for earlier, when in list(self.forwarded.items()):
            if now - when > 2 * MAX_AGE:  # by then it is too old anyway
                self.forwarded.pop(earlier, None)
        if delivery in self.forwarded:
            return 200, "nothing to do: the message has been forwarded already"
        try:
            self.dispatch(champion)
        except OSError as error:
            return 502, f"GitHub did not accept it: {getattr(error, 'code', '') or error}"
        self.forwarded[delivery] = now
        return 202, f"forwarded: {champion['model']} version {champion['version']}"


def verify(headers: Mapping[str, str], body: bytes, secret: str, now: float) -> str:
    """Check that MLflow has signed a message recently, and return the message's id.

    The signature is an HMAC-SHA256 of id, time and body (MLflow's documentation of webhooks).

    Returns
    -------
    str
        Id of the message; a message that is sent again has the same id.

    Raises
    ------
    RejectedError
        When the signature is missing, wrong or too old.
    """
    try:
        delivery, sent, signature = (
            headers[f"x-mlflow-{key}"] for key in ("delivery-id", "timestamp", "signature")
        )
    except KeyError as missing:
        raise RejectedError(f"the header {missing} is missing") from None
    signed = f"{delivery}.{sent}.".encode() + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    expected = f"v1,{base64.b64encode(digest).decode()}"
    if not hmac.compare_digest(expected.encode(), signature.encode()):
        raise RejectedError("the signature is wrong")
    if not re.fullmatch("[0-9]{1,12}", sent):
        raise RejectedError("its time is not a number of seconds")
    if abs(now - int(sent)) > MAX_AGE:
        raise RejectedError("it is too old")
    return delivery


def new_champion(body: bytes, models: tuple[str, ...]) -> dict[str, str] | None:
    """Read which version of which of `models` became champion; None for any other message.

    Raises
    ------
    RejectedError
        When the body does not have the format of MLflow's messages.
    """
    try:
        message = json.loads(body)
        event = f"{message['entity']}.{message['action']}"
        data = message["data"]
        name = data.get("name")
        if name not in models or (event, data.get("alias")) != (EVENT, champions.CHAMPION):
            return None
        return {"model": name, "version": str(data["version"])}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise RejectedError("it is not a message of MLflow") from None


def to_github(repository: str, token: str, api: str = DEFAULT_API) -> Dispatch:
    """Return a function that starts the workflows of a GitHub repository.

    Parameters
    ----------
    repository : str
        OWNER/NAME.
    token : str
        Needs write access to the repository's contents.
    api : str
        Address of GitHub's API.

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
    """Return the receiver's web application: ``POST /`` for MLflow, ``GET /livez`` for probes."""
    from fastapi import FastAPI, Request
    from fastapi.concurrency import run_in_threadpool
    from fastapi.responses import PlainTextResponse

    app = FastAPI(title="From MLflow to GitHub", docs_url=None, redoc_url=None, openapi_url=None)

    async def receive(request: Request) -> PlainTextResponse:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LARGEST:
                return PlainTextResponse("rejected: it is too large", 413)
        status, text = await run_in_threadpool(receiver.receive, request.headers, body)
        print(f"webhook: {status} {text}", flush=True)
        return PlainTextResponse(text, status)

    async def live() -> PlainTextResponse:
        return PlainTextResponse("ok")

    app.add_api_route("/", receive, methods=["POST"])
    app.add_api_route("/livez", live, methods=["GET"])
    return app


def create(url: str) -> str:
    """Create or update the webhook: the MLflow server sends a message when an alias is set."""
    client = store.connect()
    if not store.uri().startswith("http"):
        raise UserError(
            f"the MLflow store at {store.address()} is not a server, and only a server can send"
            " webhooks: set MLFLOW_TRACKING_URI to the address of a server."
        )
    settings = {
        "url": url,
        "events": [EVENT],
        "secret": required(SECRET, "it signs the messages, and the receiver needs the same value"),
        "description": "starts the deployment of a new champion",
        "status": "ACTIVE",
    }
    webhook = _find(client)
    try:
        if webhook:
            client.update_webhook(webhook.webhook_id, **settings)
        else:
            client.create_webhook(name=NAME, **settings)
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        raise UserError(f"MLflow does not accept {url}: {error.message}") from None
    return f"{store.address()} will report every new champion to {url}; this starts within a minute"


def test() -> str:
    """Let the MLflow server send an example message."""
    client = store.connect()
    webhook = _find(client)
    if webhook is None:
        raise UserError("there is no webhook: create it with `python -m pipeline webhook create`.")
    result = client.test_webhook(webhook.webhook_id)
    if not result.success:
        why = result.error_message or f"status {result.response_status}, {result.response_body}"
        raise UserError(f"{webhook.url} did not accept the message: {why}.")
    return f"{webhook.url} accepted the message: {result.response_body}"


def serve(repository: str, host: str, port: int) -> str:
    """Run the receiver until it is stopped."""
    import uvicorn

    token = required(TOKEN, "it needs write access to the repository's contents")
    secret = required(SECRET, "use the value with which the webhook was created")
    api = os.environ.get(API) or DEFAULT_API
    models = names.possible(params.load())
    receiver = Receiver(secret, models, to_github(repository, token, api))
    print(
        f"webhook: listening on {host}:{port} for new champions of {' or '.join(models)}, which"
        f" {repository} deploys",
        flush=True,
    )
    uvicorn.run(application(receiver), host=host, port=port, log_level="warning")
    return "stopped"


def required(name: str, hint: str) -> str:
    """Read a secret from the environment.

    Raises
    ------
    UserError
        When it is not set.
    """
    value = os.environ.get(name)
    if not value:
        raise UserError(f"{name} is not set: {hint}.")
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
    """Run the command with its options.

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
