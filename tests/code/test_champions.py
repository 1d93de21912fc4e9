import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from pipeline import stage
from pipeline.errors import UserError
from pipeline.registry import champions, lineage, promote, reproduce, versions
from pipeline.registry.champions import CHAMPION, AliasChange
from pipeline.registry.gate import Decision, IncomparableError
from pipeline.registry.references import ModelReference
from pipeline.tracking import store

NAME = "foley-classifier"


@pytest.fixture(scope="module")
def registry(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with five versions and no alias."""
    file = Path(shutil.copy(empty_store, tmp_path_factory.mktemp("registry")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
        client = store.connect()
        client.create_registered_model(NAME)
        for _ in range(5):
            client.create_model_version(NAME, source=str(file.parent))
    return file


@pytest.fixture
def client(shared_client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A registry with five versions and no alias; nobody else uses it, so waiting is useless."""
    monkeypatch.setattr(champions, "sleep", lambda _: None)
    return shared_client


@pytest.fixture
def shared_client(registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A registry with five versions and no alias, for several who wait for each other."""
    shutil.copy(registry, tmp_path)
    shutil.copy(Path(__file__).parents[1] / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return store.connect()


def champion(client: MlflowClient) -> str | None:
    found = champions.champion(client, NAME)
    return str(found.version) if found else None


def test_a_registry_without_a_champion_has_none_and_no_history(client: MlflowClient) -> None:
    assert champion(client) is None
    assert champions.history(client, NAME) == []
    assert champions.history(client, "no such model") == []


def test_the_history_says_who_changed_the_champion_why_and_what_it_replaced(
    client: MlflowClient,
) -> None:
    assert champions.set_champion(client, NAME, "1", "the first") is None
    assert champions.set_champion(client, NAME, "2", "better") == "1"
    assert champion(client) == "2"
    first, second = champions.history(client, NAME)
    assert (first.version, first.before, first.reason) == ("1", None, "the first")
    assert (second.version, second.before, second.reason) == ("2", "1", "better")
    assert second.by == champions._user() != ""
    assert second.at > first.at


def test_a_slow_clock_does_not_put_a_change_before_earlier_ones(
    client: MlflowClient,
) -> None:
    tag = '{"at": "2999-01-01T00:00:00.000000+00:00", "version": "3", "before": null, "by": "-",'
    client.set_registered_model_tag(NAME, "champion.2999", f'{tag} "reason": "-"}}')
    champions.set_champion(client, NAME, "4", "later, whatever the clock says")
    assert champion(client) == "4"
    assert [change.version for change in champions.history(client, NAME)] == ["3", "4"]


def test_an_alias_that_was_set_by_hand_is_in_the_history(client: MlflowClient) -> None:
    champions.set_champion(client, NAME, "1", "the first")
    champions.set_champion(client, NAME, "2", "better")
    client.set_registered_model_alias(NAME, CHAMPION, "4")
    assert champions.set_champion(client, NAME, "5", "better still") == "4"
    assert champions.succession(champions.history(client, NAME)) == ["1", "2", "4", "5"]


def test_an_alias_that_was_set_back_by_hand_is_what_the_next_one_replaces(
    client: MlflowClient,
) -> None:
    for number in "123":
        champions.set_champion(client, NAME, number, f"promoting {number}")
    client.set_registered_model_alias(NAME, CHAMPION, "1")
    assert "version 4 is champion in place of version 1" in promote.main("4", "better")
    assert promote.REPLACED not in client.get_model_version(NAME, "3").tags
    assert "version 1 is champion in place of version 4" in promote.main(None, "not at all")


def test_a_champion_that_was_taken_away_is_not_what_the_next_one_replaces(
    client: MlflowClient,
) -> None:
    champions.set_champion(client, NAME, "1", "the first")
    champions.set_champion(client, NAME, "2", "better")
    client.delete_model_version(NAME, "2")
    assert champions.set_champion(client, NAME, "3", "nobody to compare with") is None
    client.delete_registered_model_alias(NAME, CHAMPION)
    # the last one that there was
    assert promote.main(None, "needed after all").endswith("version 3 is champion")


def test_successive_rollbacks_go_back_one_champion_each_and_record_the_reason(
    client: MlflowClient,
) -> None:
    for number in "123":
        promote.main(number, f"promoting {number}")
    assert "version 2 is champion in place of version 3" in promote.main(None, "3 is deaf")
    assert client.get_model_version(NAME, "2").tags[promote.PROMOTED] == "3 is deaf"
    assert "3 is deaf" in client.get_model_version(NAME, "3").tags[promote.REPLACED]
    assert "version 1 is champion in place of version 2" in promote.main(None, "2 as well")
    with pytest.raises(UserError, match="no earlier champion"):
        promote.main(None, "and now?")
    assert [change.rollback for change in champions.history(client, NAME)] == [False] * 3 + [
        True
    ] * 2


def test_a_rollback_passes_over_versions_that_were_deleted(client: MlflowClient) -> None:
    for number in "123":
        promote.main(number, f"promoting {number}")
    client.delete_model_version(NAME, "2")
    promote.main(None, "back")
    assert champion(client) == "1"


def test_promoting_needs_a_version_that_exists_and_a_reason(client: MlflowClient) -> None:
    with pytest.raises(UserError, match=r"has no version 9 .* its versions are 1, 2, 3, 4, 5"):
        promote.main("9", "why not")
    with pytest.raises(UserError, match="a reason is needed"):
        promote.main("1", "  ")
    with pytest.raises(UserError, match="has no version 99999999999999999999 at"):
        promote.main("9" * 20, "a number that no database holds")
    with pytest.raises(UserError, match="has 2,001 characters, and at most 2,000 can be stored"):
        promote.main("1", "x" * 2001)
    assert champion(client) is None


def test_a_reason_is_one_line_of_text_wherever_it_is_read(client: MlflowClient) -> None:
    promote.main("1", "hört\n\tSirenen\u2028und \x1b[31mHunde \udcff 🐕|<b>")
    kept = "hört Sirenen und [31mHunde 🐕|<b>"
    assert client.get_model_version(NAME, "1").tags[promote.PROMOTED] == kept
    assert champions.history(client, NAME)[0].reason == kept


def test_a_store_that_cannot_be_written_ends_in_one_sentence(
    client: MlflowClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage.quiet()
    read_only = f"sqlite:///file:{tmp_path}/mlflow.db?mode=ro&uri=true"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", read_only)
    with pytest.raises(UserError, match=r"failed \(the file cannot be written\)"):
        store.guarded(lambda: promote.main("1", "the first"))()
    assert capsys.readouterr() == ("", "")


def test_a_version_registered_without_a_run_is_named_in_every_error(
    client: MlflowClient,
) -> None:
    version = client.get_model_version(NAME, "1")
    with pytest.raises(IncomparableError, match="version 1 was registered without a run"):
        versions.evaluated_version(client, version)
    assert versions.links(client, version, version) == {}
    with pytest.raises(UserError, match="version 1 was registered without a run"):
        reproduce.training_run(client, version)
    missing = lineage.follow(client, NAME, ModelReference(version=version)).missing
    assert {missing[link] for link in ("dataset", "run", "code", "metrics")} == {
        "there is no record of its run"
    }


def test_promoting_the_champion_changes_nothing(client: MlflowClient) -> None:
    promote.main("1", "the first")
    assert "is the champion already" in promote.main("champion", "again")
    assert len(champions.history(client, NAME)) == 1


def test_a_challenger_that_becomes_champion_loses_the_alias_challenger(
    client: MlflowClient,
) -> None:
    client.set_registered_model_alias(NAME, champions.CHALLENGER, "2")
    promote.main(champions.CHALLENGER, "the gate had too few clips")
    assert client.get_model_version(NAME, "2").aliases == [CHAMPION]


def test_if_three_promote_at_once_no_change_is_lost_and_the_alias_is_the_last_one(
    shared_client: MlflowClient,
) -> None:
    barrier = threading.Barrier(3)

    def promote_at_once(number: str) -> None:
        client = MlflowClient()
        barrier.wait()
        champions.set_champion(client, NAME, number, f"promoting {number}")

    with ThreadPoolExecutor(3) as people:
        list(people.map(promote_at_once, "123"))
    changes = champions.history(shared_client, NAME)
    assert sorted(change.version for change in changes) == list("123")
    assert champion(shared_client) == champions.succession(changes)[-1]


def test_a_process_killed_before_it_sets_the_alias_leaves_the_old_champion_and_its_change_recorded(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    champions.set_champion(client, NAME, "1", "the first")
    process = os.fork()
    if not process:
        monkeypatch.setattr(champions, "_set_alias", lambda *_: os.kill(os.getpid(), 9))
        champions.set_champion(client, NAME, "2", "killed")
    assert os.waitpid(process, 0)[1] == 9
    assert champion(client) == "1"
    assert champions.set_champion(client, NAME, "3", "after it") == "1"
    assert champion(client) == "3"
    changes = champions.history(client, NAME)
    assert [change.version for change in changes] == ["1", "2", "1", "3"]
    assert promote.main(None, "back").endswith("version 1 is champion in place of version 3")


def test_a_candidate_overtaken_by_another_one_is_compared_with_that_one(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    champions.set_champion(client, NAME, "1", "the first")
    champions.set_champion(client, NAME, "2", "registered at the same moment")
    compared = []

    def decide(_: object, name: str, other: object, *__: object, candidate: object) -> Decision:
        compared.append(str(other.version))  # type: ignore[attr-defined]
        return Decision(promote=False, reason="not better than version 2", against="2")

    monkeypatch.setattr(versions, "decide", decide)
    against_the_first = Decision(promote=True, reason="better than version 1", against="1")
    mine = client.get_model_version(NAME, "3")
    decision = versions.give_alias(client, mine, against_the_first, None, None)  # type: ignore[arg-type]
    assert compared == ["2"]
    assert decision.reason == "not better than version 2"
    assert champion(client) == "2"
    assert client.get_model_version(NAME, "3").aliases == [champions.CHALLENGER]


class Together:
    """Run threads one at a time; at each of their calls the next thread of a list goes on."""

    def __init__(self, order: list[int]) -> None:
        self.order = iter(order)
        self.turn = threading.Condition()
        self.alive: list[str] = []
        self.now = ""
        self.failed: list[BaseException] = []

    def run(self, jobs: dict[str, Callable[[], object]]) -> None:
        self.alive = sorted(jobs)
        threads = [threading.Thread(target=self._run, args=job) for job in jobs.items()]
        self._next()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not self.alive
        assert not self.failed

    def sleep(self, seconds: float) -> None:
        for _ in range(1 + int(seconds * 40)):
            self.step()

    def step(self) -> None:
        """Let another thread go on, and wait for the next turn."""
        with self.turn:
            if self.alive:
                self._next()
                self.turn.notify_all()
                self._wait()

    def _run(self, name: str, job: Callable[[], object]) -> None:
        threading.current_thread().name = name
        with self.turn:
            self._wait()
        try:
            job()
        except BaseException as error:  # for the thread that asks
            self.failed.append(error)
        finally:
            with self.turn:
                self.alive.remove(name)
                self._next()
                self.turn.notify_all()

    def _wait(self) -> None:
        self.turn.wait_for(lambda: self.now == threading.current_thread().name, timeout=60)

    def _next(self) -> None:
        if self.alive:
            # after the end of the list in turns, so that no thread waits for ever
            known = self.alive.index(self.now) + 1 if self.now in self.alive else 0
            self.now = self.alive[next(self.order, known) % len(self.alive)]


class Registry:
    """The part of MLflow that the history uses; other threads may act before each response."""

    def __init__(self, together: Together) -> None:
        self.together = together
        self.tags: dict[str, str] = {}
        self.alias: str | None = None

    def get_registered_model(self, _: str) -> SimpleNamespace:
        self.together.step()
        return SimpleNamespace(tags=dict(self.tags))

    def get_model_version(self, _: str, number: str) -> SimpleNamespace:
        return SimpleNamespace(name=NAME, version=number)

    def get_model_version_by_alias(self, _: str, alias: str) -> SimpleNamespace:
        self.together.step()
        assert alias == CHAMPION
        if self.alias is None:
            raise MlflowException("no such alias", RESOURCE_DOES_NOT_EXIST)
        return self.get_model_version(NAME, self.alias)

    def set_registered_model_tag(self, _: str, key: str, value: str) -> None:
        self.together.step()
        self.tags[key] = value

    def delete_registered_model_tag(self, _: str, key: str) -> None:
        self.together.step()
        del self.tags[key]

    def set_registered_model_alias(self, _: str, alias: str, number: str) -> None:
        self.together.step()
        if alias == CHAMPION:
            self.alias = number


@settings(max_examples=150, deadline=None)
@given(order=st.lists(st.integers(0, 5), max_size=80), before=st.sampled_from([None, "1", "2"]))
@example(order=[0, 1, 1, 2, 0, 2, 1, 0, 2, 2, 1, 0], before=None)
def test_of_simultaneous_candidates_the_one_that_beats_all_others_becomes_champion(
    order: list[int], before: str | None
) -> None:
    def decide(_: object, name: str, other: Any, *__: object, candidate: Any) -> Decision:
        if other is None or other.version == candidate.version:
            return Decision(promote=True, reason="nobody else")
        better = int(candidate.version) - int(other.version) > 1  # one more is not significant
        return Decision(promote=better, reason=f"against {other.version}", against=other.version)

    together = Together(order)
    registry: Any = Registry(together)
    if before:
        registry.alias = before
        registry.tags["champion.0"] = json.dumps(
            asdict(AliasChange("2000-01-01T00:00:00+00:00", before, None, "-", "-"))
        )

    def candidate(number: str) -> None:
        me = registry.get_model_version(NAME, number)
        found = champions.champion(registry, NAME)
        decision = decide(None, NAME, found, candidate=me)
        versions.give_alias(registry, me, decision, None, None)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(versions, "decide", decide)
        patch.setattr(champions, "sleep", together.sleep)
        together.run({number: partial(candidate, number) for number in "125"})
    assert registry.alias == "5"
    assert champions.succession(champions.history(registry, NAME))[-1] == "5"


def test_the_succession_forgets_what_was_rolled_back() -> None:
    changes = [AliasChange(str(i), version, None, "-", "-") for i, version in enumerate("1231")]
    assert champions.succession(changes) == ["1", "2", "3", "1"]
    back = AliasChange("5", "3", "1", "-", "-", rollback=True)
    assert champions.succession([*changes, back, back]) == ["1", "2", "3"]
