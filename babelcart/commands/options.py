"""Checks of command-line options."""

from __future__ import annotations

import click

from babelcart.rows import languages


def language(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Return the ISO 639-1 code of an option that names a language: the callback of the option."""
    if value is None:
        return None
    code = languages.iso_code(value)
    if code is None:
        raise click.BadParameter(f"{value[:100]!r} is not a language; accepted: {languages.ACCEPTED}")
    return code
