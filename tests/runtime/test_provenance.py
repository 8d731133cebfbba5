from pathlib import Path

import pytest

from deepcg.runtime.errors import InputError
from deepcg.runtime.provenance import check_same_settings

NOW = {"cv": "dihedrals", "windows": (12,), "run": Path("run"), "ps": 2.0, "options": {"a": 1}}


def check(before):
    check_same_settings(before, NOW, found="r is a run with", way_out="begin anew", free=("ps",))


def test_the_same_settings_are_let_pass():
    check({**NOW, "ps": 1.0, "of_other_versions": 3})


def test_settings_from_a_file_are_the_same():
    check({**NOW, "windows": [12], "run": "run", "options": {"a": 1}})


def test_settings_may_have_their_old_names():
    old = {"on" if name == "cv" else name: value for name, value in NOW.items()}
    check(old)
    with pytest.raises(InputError, match="r is a run with cv = x, not dihedrals: begin anew"):
        check({**old, "on": "x"})


@pytest.mark.parametrize(
    ("change", "words"),
    [({"windows": (3,)}, r"windows = \(3,\), not \(12,\)"), ({"cv": None}, "cv = None")],
)
def test_other_settings_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        check(NOW | change)
