"""The one exception whose message is written for the person at the keyboard."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can put right: the message says what was found, what is accepted and what to do."""
