"""Cells that hold printed lists: what Python, numpy and JSON print is read, all else is text."""

from typing import Any

import pytest

from flaxbert.data.table import unprinted


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("['joy', 'love']", ["joy", "love"]),
        ('["joy", "love"]', ["joy", "love"]),
        ("['joy' 'love']", ["joy", "love"]),
        ("['joy'\n 'love']", ["joy", "love"]),
        ("[1, 0, 1]", [1, 0, 1]),
        ("[1. 0. 1.]", [1.0, 0.0, 1.0]),
        ("[]", []),
        ("['it\\'s', \"that's\"]", ["it's", "that's"]),
        ('["caf\\u00e9"]', ["café"]),
        ("['a, b']", ["a, b"]),
        ("{'joy'}", ["joy"]),
        ("  ['joy']\n", ["joy"]),
        ("[['a', 'b'], ['c']]", [["a", "b"], ["c"]]),
        ("('joy', 'love')", ["joy", "love"]),
        ("('joy',)", ["joy"]),
        ("()", []),
        ("(1, 0)", [1, 0]),
        ("array(['joy', 'love'], dtype=object)", ["joy", "love"]),
        ("array(['joy',\n       'love'], dtype='<U4')", ["joy", "love"]),
        ("array([], dtype=object)", []),
        ("np.array([1., 0.])", [1.0, 0.0]),
        ("[np.str_('joy'), np.str_('love')]", ["joy", "love"]),
        ("[np.int64(1), np.int64(0)]", [1, 0]),
        ("[array(['a', 'b'], dtype=object), array(['c'], dtype=object)]", [["a", "b"], ["c"]]),
        ("set()", []),
        ("frozenset({'joy'})", ["joy"]),
        ("{'joy', np.str_('love')}", ["joy", "love"]),
    ],
)
def test_printed_lists_are_read(text: str, value: Any) -> None:
    assert unprinted(text) == value


@pytest.mark.parametrize(
    "value",
    ["joy", "[joy]", "[sic] he said", "['a' ... 'z']", "[", "{}", "{joy}", "['a", "['\\x']", "",
     "(1)", "a ['b']",
     "('joy')", "(joy, love)", "open('a')", "array(joy)", "list(['a'])", "f()", "{'a': 'b'}",
     None, 1, ["joy"], "[" * 9999 + "]" * 9999],
)  # fmt: skip
def test_other_values_are_unchanged(value: Any) -> None:
    assert unprinted(value) == value
