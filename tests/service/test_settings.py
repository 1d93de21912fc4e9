"""Settings are read strictly, and the documentation lists all of them."""

import ast
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline import cpus
from pipeline.errors import UserError
from pipeline.serving import settings
from pipeline.serving.settings import Settings

ROOT = Path(__file__).parents[2]


def documented() -> list[str]:
    """Return the rows of the table, made from the fields and their docstrings."""
    (body,) = (
        node.body
        for node in ast.parse(Path(settings.__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    )
    texts = {
        field.target.id: str(text.value.value)
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }
    folders = {"bundle": "`bundle/`", "prediction_log": "none"}
    return [
        f"| `SOUND_{field.name.upper()}` | {folders.get(field.name, field.default)}"
        f" | {texts[field.name]} |"
        for field in fields(Settings)
    ]


def test_the_table_in_the_docs_lists_every_setting() -> None:
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("| `SOUND_")] == documented()


def test_every_setting_is_read_from_its_variable() -> None:
    given = {f"SOUND_{field.name.upper()}": "7" for field in fields(Settings)}
    read = Settings.read(given)
    for field in fields(Settings):
        assert getattr(read, field.name) in (7, Path("7"))
    assert Settings.read({"SOUND_MAX_FILES": "", "OTHER": "1"}) == Settings()
    assert Settings().bundle == ROOT / "bundle"


def test_a_misspelt_setting_is_rejected_with_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"^SOUND_MAX_BYTE is not a setting.*SOUND_MAX_BYTES\?$"):
        Settings.read({"SOUND_MAX_BYTE": "1000"})
    with pytest.raises(
        UserError, match=r"^SOUND_QUALITY_OF_SERVICE is not a setting: docs/serving\.md"
    ):
        Settings.read({"SOUND_QUALITY_OF_SERVICE": "1"})


@pytest.mark.parametrize("wrong", ["many", "0", "-1", "1.5", "nan", "inf", "1e400", "٣x"])
def test_a_setting_that_is_not_a_positive_number_is_rejected_with_its_name(wrong: str) -> None:
    with pytest.raises(UserError, match=r"^SOUND_MAX_FILES is .*whole number above 0\.$"):
        Settings.read({"SOUND_MAX_FILES": wrong})


def test_there_are_two_threads_per_cpu_and_at_most_one_per_admitted_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpus, "available", lambda: 2)
    assert Settings().threads == 4
    assert Settings(max_concurrent=1).threads == 1
