"""Run a job of a workflow file: shell steps with bash, actions with stand-ins."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

Action = Callable[["Job", dict[str, str]], dict[str, str]]
"""Takes the job and the inputs of the action, and returns its outputs."""


class Cancelled(Exception):  # noqa: N818
    """Somebody cancels the run while an action runs."""


class ActionFailed(Exception):  # noqa: N818
    """An action reports that it failed."""


@dataclass
class Step:
    """The result of a step."""

    outcome: str
    outputs: dict[str, str] = field(default_factory=dict)
    log: str = ""


@dataclass
class Job:
    """A running or finished job."""

    folder: Path
    context: dict[str, Any]
    environment: dict[str, str]
    steps: dict[str, Step] = field(default_factory=dict)
    failed: bool = False
    cancelled: bool = False
    outputs: dict[str, str] = field(default_factory=dict)

    def value(self, text: str) -> str:
        """Replace the expressions in a text by their values."""
        return re.sub(r"\$\{\{(.*?)\}\}", lambda found: _text(self.evaluate(found[1])), text)

    def evaluate(self, expression: str) -> Any:
        """Evaluate a GitHub expression of the kinds that our workflows use."""
        python = re.sub(r"!(?!=)", " not ", expression)
        python = python.replace("&&", " and ").replace("||", " or ")
        parts = re.split(r"('[^']*')", python)
        for place in range(0, len(parts), 2):
            parts[place] = re.sub(
                r"\b[a-z]\w*(?:\.[\w-]+)+", lambda found: f"get({found[0]!r})", parts[place]
            )
        known = {
            "get": self._get,
            "success": lambda: not self.failed and not self.cancelled,
            "failure": lambda: self.failed and not self.cancelled,
            "cancelled": lambda: self.cancelled,
            "always": lambda: True,
        }
        return eval("".join(parts).strip(), {"__builtins__": {}}, known)

    def _get(self, path: str) -> Any:
        here: Any = {**self.context, "env": self.environment, "steps": self.steps}
        for name in path.split("."):
            here = here.get(name, "") if isinstance(here, dict) else getattr(here, name, "")
        return here


def run(
    file: Path,
    job_id: str,
    folder: Path,
    context: dict[str, Any],
    environment: dict[str, str],
    actions: dict[str, Action],
    before: dict[str, Callable[[], None]],
    instead: dict[str, Callable[[], None]],
) -> Job:
    """Run the steps of a job in order.

    Parameters
    ----------
    file : Path
        The workflow file.
    job_id : str
    folder : Path
        The checkout.
    context : dict
        ``vars``, ``secrets``, ``github``, ``inputs``, ``needs``.
    environment : dict
        Environment variables of the runner.
    actions : dict
        Stand-ins by the name of the action; a missing one fails the test.
    before, instead : dict
        Called before a step, or instead of it, by the name of the step.

    Returns
    -------
    Job
    """
    described = YAML(typ="safe").load(file.read_text())["jobs"][job_id]
    job = Job(folder, context, dict(environment))
    for name, text in described.get("env", {}).items():
        job.environment[name] = job.value(str(text))
    for number, step in enumerate(described["steps"]):
        title = step.get("name") or step.get("uses") or step["run"]
        wanted = str(step.get("if", "success()"))
        if not re.search(r"\b(success|failure|cancelled|always)\(\)", wanted):
            wanted = f"success() && ({wanted})"
        key = step.get("id", f"step-{number}")
        if not job.evaluate(wanted):
            job.steps[key] = Step("skipped")
            continue
        before.get(title, lambda: None)()
        if title in instead:
            instead[title]()
            done = Step("success")
        else:
            done = _use(job, step, actions) if "uses" in step else _shell(job, step)
        job.steps[key] = done
        print(f"--- {title}: {done.outcome}\n{done.log}", file=sys.stderr)
        job.failed = job.failed or done.outcome == "failure"
        job.cancelled = job.cancelled or done.outcome == "cancelled"
    job.outputs = {k: job.value(str(v)) for k, v in described.get("outputs", {}).items()}
    return job


def _use(job: Job, step: dict[str, Any], actions: dict[str, Action]) -> Step:
    name, _, commit = step["uses"].partition("@")
    assert re.fullmatch("[0-9a-f]{40}", commit), f"{name} is not pinned by commit"
    inputs = {key: job.value(str(value)) for key, value in step.get("with", {}).items()}
    try:
        return Step("success", actions[name](job, inputs))
    except Cancelled:
        return Step("cancelled")
    except ActionFailed as failed:
        return Step("failure", log=str(failed))


def _shell(job: Job, step: dict[str, Any]) -> Step:
    assert "${{" not in step["run"], "a shell line contains an expression"
    output, summary = job.folder / "github-output", job.folder / "github-summary"
    output.write_text("")
    added = {key: job.value(str(value)) for key, value in step.get("env", {}).items()}
    done = subprocess.run(
        ["bash", "-e", "-c", step["run"]],
        cwd=job.folder,
        env={
            **os.environ,
            **job.environment,
            **added,
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(summary),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    outputs = dict(line.split("=", 1) for line in output.read_text().splitlines())
    return Step("failure" if done.returncode else "success", outputs, done.stdout)


def _text(value: Any) -> str:
    return (
        {True: "true", False: "false"}.get(value, str(value))
        if isinstance(value, bool)
        else str(value)
    )
