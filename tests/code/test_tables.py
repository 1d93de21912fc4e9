"""Tables and records are read back as they were written, whatever their labels look like."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import tables
from pipeline.errors import UserError

LABELS = [
    *map(str, range(10)),
    *("007", "042", "1.0", "1e3", "-1", "+1", "0x10", "1_000", "inf"),
    *("NA", "nan", "null", "None", "", "true", "False", "2026-11-25"),
    *(" dog", "dog ", "dog, barking", 'the "dog"', "it's", "line\nbreak", "#1", "=1+1"),
    *("🐕", "犬", "é", "e\u0301"),
]  # fmt: skip


def test_labels_stay_the_text_that_they_are(tmp_path: Path) -> None:
    table = pd.DataFrame({"label": LABELS, "predicted": LABELS[::-1], "fold": range(len(LABELS))})
    tables.write(tmp_path / "table.csv", table)
    back = tables.read(tmp_path / "table.csv")
    assert back["label"].to_list() == LABELS
    assert back["predicted"].to_list() == LABELS[::-1]
    assert back["fold"].to_list() == list(range(len(LABELS)))


@pytest.mark.parametrize("column", sorted(tables.TEXT_COLUMNS))
def test_every_text_column_keeps_numbers_as_text(column: str, tmp_path: Path) -> None:
    tables.write(tmp_path / "table.csv", pd.DataFrame({column: ["007", "1"], "x": [1.0, 2.0]}))
    assert tables.read(tmp_path / "table.csv")[column].to_list() == ["007", "1"]
    assert tables.read(tmp_path / "table.csv", [column])[column].to_list() == ["007", "1"]


def test_a_label_in_a_columns_name_is_kept(tmp_path: Path) -> None:
    columns = [f"p_{label}" for label in LABELS]
    probabilities = np.eye(len(LABELS))
    tables.write(tmp_path / "table.csv", pd.DataFrame(probabilities, columns=columns))
    back = tables.read(tmp_path / "table.csv")
    assert back.columns.to_list() == columns
    np.testing.assert_array_equal(back, probabilities)


LINES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
ROWS = st.tuples(LINES, LINES, st.integers(-(2**63), 2**63 - 1), NUMBERS | st.none())


@settings(deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=8))
def test_any_table_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int, float | None]]
) -> None:
    path = tmp_path_factory.mktemp("any") / "table.csv"
    table = pd.DataFrame(rows, columns=["label", "path", "fold", "seconds"])
    table = table.astype({"label": str, "path": str, "fold": "int64", "seconds": float})
    tables.write(path, table)
    pd.testing.assert_frame_equal(tables.read(path), table, check_exact=True)


def test_an_empty_cell_is_empty_text_or_a_missing_number(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("label,salience\n,1\ndog,\n")
    back = tables.read(tmp_path / "table.csv")
    assert back["label"].to_list() == ["", "dog"]
    assert back["salience"].isna().to_list() == [False, True]


def test_a_table_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    tables.write(tmp_path / "table.csv", pd.DataFrame({"path": [], "reason": []}))
    assert tables.read(tmp_path / "table.csv").columns.to_list() == ["path", "reason"]


def test_floats_are_written_with_as_many_digits_as_asked_for(tmp_path: Path) -> None:
    table = pd.DataFrame({"label": ["1"], "accuracy": [2 / 3], "clips": [3]})
    tables.write(tmp_path / "table.csv", table, digits=4)
    assert (tmp_path / "table.csv").read_text() == "label,accuracy,clips\n1,0.6667,3\n"


def test_a_write_that_fails_leaves_the_table_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    tables.write(path, pd.DataFrame({"label": ["dog"]}))
    unwritable = pd.DataFrame({"label": ["cat", "\ud800"]}, dtype=object)
    with pytest.raises(UnicodeEncodeError):
        tables.write(path, unwritable)
    assert tables.read(path)["label"].to_list() == ["dog"]


def test_a_write_that_fails_leaves_the_record_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    tables.write_json(path, {"label": "dog"})
    with pytest.raises(UnicodeEncodeError):
        tables.write_json(path, {"label": "\ud800"})
    assert tables.read_json(path) == {"label": "dog"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is damaged"),
        (b"\n\n", "is damaged"),
        (b"label,fold\ndog,one\n", "is damaged"),
        (b"label,fold\ndog,1.5\n", "is damaged"),
        (b"label,fold\ndog,\n", "is damaged"),
        (b"label,fold\ndog\n", "is damaged"),
        (b"label,fold\ndog,99999999999999999999\n", "is damaged"),
        (b'label,fold\n"dog,1\n', "is damaged"),
        (b"label,fold\n\xff,1\n", "is damaged"),
        (b"PK\x03\x04\x00\x00", "has no column label"),
        (b"path,fold\na.wav,1\n", "has no column label"),
    ],
)
def test_a_damaged_table_is_one_sentence_that_names_it(
    content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        tables.read(path, ["label", "fold"])
    message = str(caught.value)
    assert message.startswith(f"{path} {said}")
    assert "dvc repro" in message
    assert "\n" not in message
    assert ".)" not in message


def test_missing_files_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"table\.csv is missing: run `dvc repro`"):
        tables.read(tmp_path / "table.csv")
    with pytest.raises(UserError, match=r"record\.json is missing: run `dvc repro`"):
        tables.read_json(tmp_path / "record.json")


@pytest.mark.parametrize("content", [b"", b"{", b"{'a': 1}", b"\xff", b"[" * 100_000])
def test_a_damaged_record_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged") as caught:
        tables.read_json(path)
    assert "\n" not in str(caught.value)


def test_a_record_keeps_labels_as_keys_and_values(tmp_path: Path) -> None:
    record = {"labels": LABELS, "recall": dict.fromkeys(LABELS, 0.1)}
    tables.write_json(tmp_path / "new" / "record.json", record)
    assert tables.read_json(tmp_path / "new" / "record.json") == record
    assert (tmp_path / "new" / "record.json").read_text(encoding="utf-8").endswith("}\n")
