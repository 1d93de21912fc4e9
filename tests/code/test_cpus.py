import os
from pathlib import Path

import pytest

from pipeline import cpus


@pytest.fixture
def four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process that may use four CPUs of a larger machine; returns the file with its quota."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(cpus, "QUOTA", tmp_path / "cpu.max")
    return cpus.QUOTA


def test_only_the_cpus_that_this_process_may_use_count(four: Path) -> None:
    assert cpus.available() == 4


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000\n", 4), ("200000 100000\n", 2), ("150000 100000\n", 2), ("10000 100000\n", 1),
     ("800000 100000\n", 4)],
)  # fmt: skip
def test_the_quota_of_a_container_counts(four: Path, quota: str, expected: int) -> None:
    four.write_text(quota)
    assert cpus.available() == expected


def test_a_system_without_affinity_counts_all_its_cpus(
    four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cpus.available() == 64
