"""Less noise from libraries."""

from __future__ import annotations


def silence_libraries() -> None:
    """Silence what libraries say that no user can act on, and their progress bars where nobody watches."""
    import logging
    import os
    import sys
    import warnings

    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is first imported, so before transformers is

    from transformers.utils import logging as transformers_logging

    # bitsandbytes and peft speak up even where nothing is quantised or checkpointed.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
