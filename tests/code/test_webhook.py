import json
import time

import pytest
from mlflow.webhooks.delivery import _generate_hmac_signature

from pipeline.__main__ import main as front_door
from pipeline.registry.webhook import Receiver

SECRET = "known to both"
NOW = 1_700_000_000.0


def message(**changes: object) -> bytes:
    data = {"name": "sounds", "alias": "champion", "version": "3"} | changes
    sent = {"entity": "model_version_alias", "action": "created", "data": data}
    return json.dumps(sent).encode()


def signed(body: bytes, secret: str = SECRET, sent: float = NOW) -> dict[str, str]:
    """Headers as MLflow itself makes them."""
    stamp = str(int(sent))
    return {
        "x-mlflow-delivery-id": "an-id",
        "x-mlflow-timestamp": stamp,
        "x-mlflow-signature": _generate_hmac_signature(secret, "an-id", stamp, body.decode()),
    }


class GitHub:
    def __init__(self) -> None:
        self.taken: list[dict[str, str]] = []
        self.fault: OSError | None = None

    def __call__(self, champion: dict[str, str]) -> None:
        if self.fault:
            raise self.fault
        self.taken.append(champion)


@pytest.fixture
def github() -> GitHub:
    return GitHub()


@pytest.fixture
def receiver(github: GitHub) -> Receiver:
    return Receiver(SECRET, ("sounds",), github, clock=lambda: NOW + 10)


def test_a_new_champion_is_forwarded(receiver: Receiver, github: GitHub) -> None:
    body = message()
    assert receiver.receive(signed(body), body) == (202, "forwarded: sounds version 3")
    assert github.taken == [{"model": "sounds", "version": "3"}]


@pytest.mark.parametrize("change", [{"alias": "challenger"}, {"name": "another model"}])
def test_other_messages_are_accepted_and_ignored(
    receiver: Receiver, github: GitHub, change: dict[str, str]
) -> None:
    body = message(**change)
    assert receiver.receive(signed(body), body)[0] == 200
    assert github.taken == []


def test_an_unsigned_forged_changed_or_old_message_is_rejected(
    receiver: Receiver, github: GitHub
) -> None:
    body = message()
    unsigned = signed(body)
    del unsigned["x-mlflow-signature"]
    for headers, sent in (
        ({}, body),
        (unsigned, body),
        (signed(body, secret="guessed"), body),
        (signed(body), message(version="4")),
        (signed(body, sent=NOW - 3600), body),
        ({**signed(body), "x-mlflow-timestamp": str(int(time.time()))}, body),
        ({**signed(body), "x-mlflow-signature": "v1,é"}, body),
    ):
        status, text = receiver.receive(headers, sent)
        assert status == 401, text
    assert github.taken == []


def test_a_repeated_message_starts_nothing(receiver: Receiver, github: GitHub) -> None:
    body = message()
    for _ in range(2):
        status, _said = receiver.receive(signed(body), body)
    assert status == 200
    assert len(github.taken) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"no JSON", b"[1]", b"null", b'{"data": null}', b"[" * 50_000,
     message().replace(b'"version"', b'"verse"')],
)  # fmt: skip
def test_a_signed_body_that_is_not_a_message_of_mlflow_is_rejected(
    receiver: Receiver, github: GitHub, body: bytes
) -> None:
    status, text = receiver.receive(signed(body), body)
    assert (status, text) == (400, "rejected: it is not a message of MLflow")
    assert github.taken == []


@pytest.mark.parametrize("sent", ["", "soon", "nan", "1.5", "-1", "9" * 5000])
def test_a_time_that_is_not_a_number_is_rejected(
    receiver: Receiver, github: GitHub, sent: str
) -> None:
    body = message()
    signature = _generate_hmac_signature(SECRET, "an-id", sent, body.decode())
    headers = {**signed(body), "x-mlflow-timestamp": sent, "x-mlflow-signature": signature}
    assert receiver.receive(headers, body) == (401, "rejected: its time is not a number of seconds")


def test_a_failing_github_makes_mlflow_send_it_again(receiver: Receiver, github: GitHub) -> None:
    body = message()
    github.fault = ConnectionRefusedError("refused")
    assert receiver.receive(signed(body), body)[0] == 502
    github.fault = None
    assert receiver.receive(signed(body), body)[0] == 202


def test_the_front_door_starts_the_receiver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    with pytest.raises(SystemExit, match="GITHUB_TOKEN is not set: it needs write access"):
        front_door(["webhook", "serve", "--repository", "team/sounds"])
