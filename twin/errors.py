"""The one exception that means "the user gave something wrong"."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input, told in one line: which file, key and value, and what would be right.

    Commands print the message without a traceback and exit with a non-zero code.
    """
