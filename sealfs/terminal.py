"""What may be shown on a terminal: text whose words others chose, without what a terminal would obey.

File names, what a store or a broker answers, and evidence end up in messages. Whatever prints one goes through
here, so that none of them moves the cursor, turns the reading direction, or looks like a line of its own.

Threading: stateless.
"""

from __future__ import annotations

import logging


def escaped(text: str) -> str:
    """Return text on one line: control characters, invisible ones and lone surrogates as `\\x1b`, `\\u202e`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class LineFormatter(logging.Formatter):
    """Log records for people, a line each; a traceback that belongs to one keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that logging has for it
        """See logging."""
        return escaped(super().formatMessage(record))
