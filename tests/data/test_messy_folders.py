"""Whatever folder a user has, it becomes a complete dataset or one sentence that says what to do.

``python -m bench.messy`` tries hundreds of folders with other seeds.
"""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests import messy

BOUNDED = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
"""The same folders in every run."""


def check(folder: messy.Folder, again: bool = False) -> None:
    _, faults = messy.once(folder, again)
    assert not faults


@pytest.mark.parametrize("kind", [*messy.MESS, *messy.HOPELESS])
@settings(BOUNDED, max_examples=2)
@given(st.data())
def test_a_folder_with_one_kind_of_mess(kind: str, data: st.DataObject) -> None:
    check(data.draw(messy.folders(kind)))


@settings(BOUNDED, max_examples=15)
@given(messy.folders())
def test_a_folder_with_several_kinds_of_mess(folder: messy.Folder) -> None:
    check(folder, again=True)
