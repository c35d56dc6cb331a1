"""Nothing that others wrote moves a terminal's cursor, turns its direction, or looks like a line of its own."""

from __future__ import annotations

import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealfs.terminal import LineFormatter, escaped


@given(st.text())
def test_one_line_that_can_be_printed(text: str) -> None:
    assert escaped(text).isprintable()
    assert escaped(escaped(text)) == escaped(text)


@pytest.mark.parametrize("text", ["plain", "Ärzte", "眼底", "a b", "back\\slash", ""])
def test_ordinary_words_stay(text: str) -> None:
    assert escaped(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\x1b[2J", "\\x1b[2J"), ("a\nb", "a\\nb"), ("\u202e", "\\u202e"), ("\udc80", "\\udc80"), ("\x9b", "\\x9b")],
)
def test_what_a_terminal_obeys_is_spelled_out(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_a_log_record_is_a_line_and_its_traceback_stays_one() -> None:
    try:
        raise ValueError("of\nours")
    except ValueError:
        trace = sys.exc_info()
    record = logging.LogRecord("sealfs", logging.WARNING, "", 0, "a %s", ("\x1b]0;x\x07\nname",), trace)
    lines = LineFormatter("sealfs: %(message)s").format(record).splitlines()
    assert lines[0] == "sealfs: a \\x1b]0;x\\x07\\nname"
    assert lines[1].startswith("Traceback")
