"""This script has moved. The stub will be removed in version 0.3."""

import sys

sys.exit("`python benchmarks/experiment.py` is now `babelcart experiments`")
