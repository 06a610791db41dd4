#!/usr/bin/env bash
# Report in Markdown what the workspace changes compared with a revision: .github/report.sh REVISION FOLDER
# Writes FOLDER/comment.md (summary), FOLDER/metrics.md (every metric that changed) and FOLDER/plots/index.html.
set -euo pipefail
base=$1 out=$2
export DVC_SITE_CACHE_DIR="$PWD/.dvc/tmp/site" DVC_NO_ANALYTICS=1
mkdir -p "$out"

all=$(dvc metrics diff --md "$base")
{
  echo '<!-- babelcart report -->'
  echo "## $(git rev-parse --short "$base") → $(git rev-parse --short HEAD)"
  echo
  # Keep the header and the rows of F1 and AUC; metrics.md has all others.
  short=$(awk 'NR <= 2 || / (test|dev)\.(overall|seen|unseen)\.(f1|auc) /' <<< "$all")
  if [ "$(wc -l <<< "$short")" -gt 2 ]; then
    echo "$short"
  elif [ "$(wc -l <<< "$all")" -gt 2 ]; then
    echo 'No score of test or dev rows changes; other metrics do.'
  else
    echo 'No metric changes.'
  fi
  for model in $(python -c 'from babelcart.core import config; print(*config.load("run", tuple[str, ...]))'); do
    echo
    echo "### Row by row, $model"
    echo
    # Print no flipped rows: queries of shoppers must not appear in a comment.
    echo '```'
    python -m babelcart compare "$base" --model "$model" --flipped 0 2>&1 || true
    echo '```'
  done
} > "$out/comment.md"
printf '\n<details><summary>Every metric that changes</summary>\n\n%s\n\n</details>\n' "$all" > "$out/metrics.md"
dvc plots diff "$base" --out "$out/plots" > /dev/null || echo 'no plots to compare' >&2
