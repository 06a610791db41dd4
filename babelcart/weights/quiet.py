"""Reduce the output of libraries."""

from __future__ import annotations


def silence_libraries() -> None:
    """Silence warnings that users cannot act on, and progress bars if standard error is not a terminal."""
    import logging
    import os
    import sys
    import warnings

    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # tqdm reads it when it is imported, and transformers imports tqdm

    from transformers.utils import logging as transformers_logging

    # bitsandbytes and peft warn even if nothing is quantised or checkpointed.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
