"""The stages of dvc.yaml, one script each: `python -m stages.NAME --help`."""

import sys

# Scripts that have become subcommands of `babelcart`. To be removed in version 0.3.
_MOVED = ("check", "compare", "current", "export", "heal", "memory", "plan", "pull", "results", "verify")

# `python -m stages.X` imports this package before it looks for X.
_module = sys.orig_argv[sys.orig_argv.index("-m") + 1] if "-m" in sys.orig_argv[:-1] else ""
if _module.startswith("stages.") and (_name := _module.removeprefix("stages.")) in _MOVED:
    sys.exit(f"`python -m {_module}` is now `babelcart {_name}`")
