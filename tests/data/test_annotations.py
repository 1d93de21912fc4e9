"""Labels for parts of recordings: both formats, any content, and the clips they give."""

import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline import paths, tables
from pipeline.data import annotations
from pipeline.data.annotations import Part, parse
from pipeline.errors import UserError
from pipeline.stages import download

ROOT = Path(__file__).parents[2]
RATE = 8000
RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\t"


def found(text: str) -> list[tuple[float, float, str]]:
    parts = parse(text, "a.txt")
    assert parts is not None
    return [(part.start, part.end, part.label) for part in parts if not part.problem]


def problems(text: str) -> list[str]:
    parts = parse(text, "a.txt")
    assert parts is not None
    return [part.problem for part in parts if part.problem]


def test_a_label_track_is_read_with_spectral_lines_decimal_commas_and_windows_line_ends() -> None:
    text = "0.5\t1.25\tgreat tit\r\n\\\t1000.0\t4000.0\r\n2,5\t3,75\tjay, 2nd\r\n"
    assert found(text) == [(0.5, 1.25, "great tit"), (2.5, 3.75, "jay, 2nd")]
    assert problems(text) == []


def test_lines_that_give_no_part_are_named() -> None:
    text = "0\t1\tdog\n2\t2\tdog\n4\t3\tdog\n5\t6\t\nx\t7\tdog\n-1\t1\tdog\n8\t9\tcat\n9\t10\tcat\n"
    assert found(text) == [(0, 1, "dog"), (8, 9, "cat"), (9, 10, "cat")]
    assert problems(text) == [
        "a.txt, line 2: the label marks a point in time and not a part, so give it a length.",
        "a.txt, line 3: the part ends at 3 s, before it begins at 4 s.",
        "a.txt, line 4: the part has no label.",
        "a.txt, line 5: 'x' is not a time in seconds.",
        "a.txt, line 6: the part begins before the recording.",
    ]


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n\n",
        "Recorded by Ann, 3 May.\nWind from the west.\n",
        "temperature\t12\nhumidity\t40\n",
        "0.0\t12.5\n1.0\t12.7\n",  # two columns of numbers from a logger
        "0.0\t1.0\tdog\nthe rest is\nonly a note\n",
    ],
)
def test_a_note_is_not_taken_for_a_label_track(note: str) -> None:
    assert parse(note, "a.txt") is None


@pytest.mark.parametrize("column", ["Annotation", "species", "Label", "My Code For It"])
def test_a_selection_counts_once_whatever_views_show_it(column: str) -> None:
    text = (
        RAVEN
        + column
        + (
            "\n1\tWaveform 1\t1\t0.5\t1.5\t0.0\t4000.0\ttit"
            "\n1\tSpectrogram 1\t1\t0.5\t1.5\t0.0\t4000.0\ttit"
            "\n2\tSpectrogram 1\t1\t2\t3.5\t0.0\t4000.0\tjay\n3\tSpectrogram 1\t1\t5\t6\n"
        )
    )
    assert found(text) == [(0.5, 1.5, "tit"), (2, 3.5, "jay")]
    assert problems(text) == ["a.txt, line 5: the part has no label."]


def test_a_selection_table_without_a_column_of_labels_is_refused() -> None:
    with pytest.raises(UserError, match=r"a\.txt has no column that is known to hold labels: name"):
        parse(RAVEN + "Score\n1\tSpectrogram 1\t1\t0.5\t1.5\t0\t4000\t0.7\n", "a.txt")


def test_a_selection_table_of_several_sound_files_is_refused() -> None:
    table = RAVEN + "Begin File\tTag\n1\tS 1\t1\t0.5\t1.5\t0\t9\ta.wav\ttit\n"
    assert found(table) == [(0.5, 1.5, "tit")]
    with pytest.raises(UserError, match=r"a\.txt selects parts of 2 sound files: save one"):
        parse(table + "2\tS 1\t1\t70\t71\t0\t9\tb.wav\ttit\n", "a.txt")


def test_parts_with_another_label_must_not_overlap_by_more_than_an_edge() -> None:
    parts = [
        Part("a, line 1", 0, 2, "dog"),
        Part("a, line 2", 1, 3, "cat"),
        Part("a, line 3", 2.95, 4, "dog"),
        Part("a, line 4", 3, 5, "dog"),
    ]
    marked = annotations.without_contradictions(parts)
    assert [bool(part.problem) for part in marked] == [True, True, False, False]
    assert marked[0].problem == (
        "a, line 1: the part overlaps another one that has the label cat (a, line 2)."
    )


cells = st.sampled_from(
    ["0", "1.5", "2,25", "-3", "1e9", "nan", "inf", "", "\\", "dog", "\x00", "Begin Time (s)", "ü"]
)
tables_of_cells = st.lists(st.lists(cells, max_size=8).map("\t".join), max_size=8).map("\n".join)


@given(st.one_of(st.text(max_size=200), tables_of_cells, tables_of_cells.map(RAVEN.__add__)))
@settings(deadline=None, max_examples=300)
def test_any_text_gives_usable_parts_or_reasons(text: str) -> None:
    parts = None
    with suppress(UserError):
        parts = parse(text, "a.txt")
    for part in annotations.without_contradictions(parts or []):
        if part.problem:
            assert part.problem.startswith("a.txt, line ")
            assert part.problem.endswith(".")
        else:
            assert 0 <= part.start < part.end < 1e9
            assert part.label.isprintable()
            assert part.label.strip() == part.label != ""


parts_of_a_recording = st.lists(
    st.tuples(st.integers(0, 100_000), st.integers(1, 9_000), st.sampled_from(["dog", "ü 2", "7"])),
    min_size=1,
    max_size=9,
    unique=True,
)


@given(parts_of_a_recording, st.sampled_from([".", ","]), st.booleans())
@settings(deadline=None, max_examples=100)
def test_both_formats_give_the_parts_that_were_written(
    parts: list[tuple[int, int, str]], point: str, raven: bool
) -> None:
    rows = [(start / 1000, (start + length) / 1000, label) for start, length, label in parts]
    times = [(f"{a:.6f}".replace(".", point), f"{b:.6f}".replace(".", point)) for a, b, _ in rows]
    lines = [
        f"{n}\tSpectrogram 1\t1\t{a}\t{b}\t0\t9\t{label}" if raven else f"{a}\t{b}\t{label}"
        for n, ((a, b), (_, _, label)) in enumerate(zip(times, rows, strict=True))
    ]
    text = "\n".join([RAVEN + "Tag", *lines] if raven else lines)
    assert found(text) == [(float(f"{a:.6f}"), float(f"{b:.6f}"), label) for a, b, label in rows]


@given(st.binary(max_size=300))
@settings(deadline=None, max_examples=100)
def test_any_bytes_can_be_read_as_text(content: bytes) -> None:
    assert isinstance(annotations.as_text(content), str)


# name, seconds; each is annotated below
RECORDINGS = [f"{day}/rec{number}" for day in ("monday", "tuesday") for number in (1, 2, 3)]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Long recordings in folders that name days, annotated in both formats."""
    monkeypatch.chdir(tmp_path)
    content = YAML().load(ROOT / "tests" / "params.yaml")
    content["dataset"] |= {"name": "folder", "max_rejected": 0.5}
    content["dataset"]["folder"]["folds"] = 3
    YAML().dump(content, paths.PARAMS)
    rng = np.random.default_rng(0)
    for place, name in enumerate(RECORDINGS):
        file = paths.SOUNDS / f"{name}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, rng.uniform(-0.5, 0.5, (20 * RATE, 2)), RATE, subtype="PCM_16")
        if place % 2:
            file.with_suffix(".txt").write_text("1.0\t3.0\ttit\n5.0\t7.5\tjay\n", encoding="utf-8")
        else:
            table = RAVEN + "Species\n1\tWaveform 1\t1\t1.0\t3.0\t0\t9\ttit\n"
            table += "2\tWaveform 1\t1\t5.0\t7.5\t0\t9\tjay\n"
            file.with_name(f"{file.stem}.Table.1.selections.txt").write_text(table)
    return tmp_path


def test_labelled_parts_become_clips_of_their_recording(workspace: Path) -> None:
    (paths.SOUNDS / "monday" / "rec1.txt").write_text("Windy, with rain.\n")
    assert "12 clips of 2 classes in 3 folds (6 recordings" in download.main()
    clips = tables.read(paths.CLIPS)
    assert clips["path"].tolist()[:2] == [
        "monday/rec1.wav/00001.000-00003.000.flac",
        "monday/rec1.wav/00005.000-00007.500.flac",
    ]
    assert clips["label"].tolist() == ["tit", "jay"] * 6
    assert clips["recording"].tolist() == [f"{name}.wav" for name in RECORDINGS for _ in range(2)]
    assert clips.groupby("recording")["fold"].nunique().max() == 1
    assert clips["seconds"].tolist() == [2.0, 2.5] * 6
    assert set(clips["subtype"]) == {"PCM_24"}
    whole, _ = soundfile.read(paths.SOUNDS / "monday/rec1.wav")
    part, rate = soundfile.read(paths.AUDIO / clips["path"][1])
    assert rate == RATE
    np.testing.assert_array_equal(part, whole[5 * RATE : int(7.5 * RATE)])
    assert not annotations.PARTS.exists()
    assert sorted(file.name for file in (paths.SOUNDS / "tuesday").iterdir()) == [
        "rec1.txt", "rec1.wav", "rec2.Table.1.selections.txt", "rec2.wav", "rec3.txt", "rec3.wav",
    ]  # fmt: skip


def test_parts_that_cannot_be_cut_are_listed_with_file_and_line(workspace: Path) -> None:
    track = "1\t3\ttit\n19\t20.05\ttit\n30\t31\tjay\n5\t7.5\tjay\n10\t12\t\n14\t13\tjay\n"
    (paths.SOUNDS / "monday" / "rec2.txt").write_text(track)
    notes = [p.relative_to(paths.SOUNDS).as_posix() for p in paths.SOUNDS.rglob("*.txt")]
    assert "13 clips of 2 classes" in download.main()
    summary = tables.read_json(paths.SUMMARY)
    assert (summary["files"], summary["parts"], summary["rejected"]) == (len(notes) + 6, 16, 3)
    listed = tables.read(paths.REJECTED).set_index("path")
    assert listed["reason"][listed["kind"] == "other"].to_dict() == {
        **{f"{name}.wav": "Its labelled parts are the clips." for name in RECORDINGS},
        **{note: f"It labels parts of {note.split('.')[0]}.wav." for note in notes},
    }
    assert listed["reason"][listed["kind"] == "part"].to_dict() == {
        "monday/rec2.wav/00010.000-00012.000.flac": "monday/rec2.txt, line 5: the part has no"
        " label.",
        "monday/rec2.wav/00014.000-00013.000.flac": "monday/rec2.txt, line 6: the part ends at"
        " 13 s, before it begins at 14 s.",
        "monday/rec2.wav/00030.000-00031.000.flac": "The part from 30 s to 31 s is not in"
        " monday/rec2.wav, which is 20.000 s long.",
    }


def test_parts_follow_the_group_and_the_corrections(workspace: Path) -> None:
    content = YAML().load(paths.PARAMS)
    for number in (1, 2):
        shutil.copytree(paths.SOUNDS / "monday", paths.SOUNDS / f"day{number}")
        for file in (paths.SOUNDS / f"day{number}").glob("*.wav"):  # identical files are one
            file.write_bytes(file.read_bytes()[:-1] + bytes([number]))
    content["dataset"]["folder"]["group"] = "parent"
    YAML().dump(content, paths.PARAMS)
    paths.CORRECTIONS.write_text(
        "dataset,path,label,reason\nfolder,monday/rec1.wav/00001.000-00003.000.flac,jay,\n"
        "folder,monday/rec2.wav/00001.000-00003.000.flac,,\n"
    )
    download.main()
    clips = tables.read(paths.CLIPS)
    assert set(clips["recording"]) == {"monday", "tuesday", "day1", "day2"}
    assert clips["path"][clips["path"].str.startswith("monday/rec")].size == 5
    assert clips.set_index("path")["label"]["monday/rec1.wav/00001.000-00003.000.flac"] == "jay"


def test_a_loud_recording_in_floating_point_is_not_clipped(workspace: Path) -> None:
    loud = np.random.default_rng(1).uniform(-4, 4, 20 * RATE)
    soundfile.write(paths.SOUNDS / "monday/rec1.wav", loud, RATE, subtype="FLOAT")
    download.main()
    part, _ = soundfile.read(paths.AUDIO / "monday/rec1.wav/00001.000-00003.000.flac")
    expected = loud[RATE : 3 * RATE] / np.abs(loud).max()
    np.testing.assert_allclose(part, expected, atol=1e-6)


def test_a_file_that_is_no_table_or_has_two_owners_is_named(workspace: Path) -> None:
    table = paths.SOUNDS / "monday" / "rec2.selections.txt"
    table.write_text("nothing")
    with pytest.raises(UserError, match=r"monday/rec2\.selections\.txt is not a selection table"):
        download.main()
    table.unlink()
    shutil.copy(paths.SOUNDS / "monday" / "rec2.wav", paths.SOUNDS / "monday" / "rec2.flac")
    with pytest.raises(UserError, match=r"rec2\.txt could belong to monday/rec2\.flac or to mon"):
        download.main()


def test_a_recording_that_cannot_be_decoded_takes_only_its_parts(workspace: Path) -> None:
    (paths.SOUNDS / "monday" / "rec1.wav").write_bytes(b"no sound")
    assert "10 clips of 2 classes in 3 folds (5 recordings" in download.main()
    listed = tables.read(paths.REJECTED)
    reasons = listed["reason"][listed["kind"] == "part"]
    assert len(reasons) == 2
    assert reasons.str.startswith("monday/rec1.wav: The file is not audio").all()


def test_recordings_and_annotations_without_their_counterpart_are_pointed_out(
    workspace: Path,
) -> None:
    for number in range(3):
        file = paths.SOUNDS / "monday" / f"other{number}.wav"
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, RATE)
        soundfile.write(file, noise, RATE)
    (paths.SOUNDS / "monday" / "lost.txt").write_text("1\t3\ttit\n")
    (paths.SOUNDS / "monday" / "note.txt").write_text("Cloudy, some wind.\n")
    assert (
        "monday/other0.wav has no annotations, although recordings beside it do, and counts as a"
        " clip of monday, and so do 2 more: annotate it or move it away if that is wrong."
    ) in download.main()
    reasons = tables.read(paths.REJECTED).set_index("path")["reason"]
    assert reasons["monday/lost.txt"] == "It labels parts, but there is no sound file of its name."
    assert reasons["monday/note.txt"] == "This is not a sound file."
