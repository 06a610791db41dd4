"""Compare the probabilities of a published model, as its example.py computes them, with those of `predict` (docs/publishing.md).

    python benchmarks/published.py sample predictions/gemma3-270m/qc/test.parquet --rows 200 > rows.json
    python benchmarks/published.py compare FOLDER rows.json

The second command needs only the packages that example.py needs, and no other module of this project: run it in an environment with
nothing else. FOLDER is a download of the repository, or an exported adapter; --base is passed on to its example.py.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path


def sample(table: Path, rows: int) -> None:
    """Print random rows of a table of predictions as JSON."""
    import pandas as pd

    chosen = pd.read_parquet(table).sample(rows, random_state=0)
    print(
        chosen[["origin_query", "candidate", "language", "probability"]].to_json(orient="records", force_ascii=False, double_precision=15)
    )


def compare(folder: Path, rows: Path, base: str | None) -> None:
    """Score the rows with example.py of a folder and print the differences from their probabilities."""
    if found := [name for name in ("babelcart", "dvc", "pandas", "sklearn") if importlib.util.find_spec(name)]:
        print(f"note: this environment also has {', '.join(found)}")
    spec = importlib.util.spec_from_file_location("example", folder / "example.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{folder} has no example.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    contract = json.loads((folder / "babelcart.json").read_text(encoding="utf-8"))
    model, tokenizer = example.load(base, "float32", contract["quantization"])
    differences, flips = [], 0
    for row in json.loads(rows.read_text(encoding="utf-8")):
        texts = {"query": row["origin_query"], "pivot": row["origin_query"], "candidate": row["candidate"]}
        tokens = example.encode(tokenizer, contract["prompt"], row["language"], texts)
        probability = example.p_relevant(model, contract["label_tokens"], tokens)
        differences.append(abs(probability - row["probability"]))
        threshold = contract["thresholds"].get(row["language"], contract["threshold"])
        flips += (probability >= threshold) != (row["probability"] >= threshold)
    mean = sum(differences) / len(differences)
    print(f"{len(differences)} rows: largest difference {max(differences):.1e}, mean {mean:.1e}; {flips} other decisions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    rows = commands.add_parser("sample")
    rows.add_argument("table", type=Path)
    rows.add_argument("--rows", type=int, default=200)
    folder = commands.add_parser("compare")
    folder.add_argument("folder", type=Path)
    folder.add_argument("table", type=Path)
    folder.add_argument("--base")
    options = parser.parse_args()
    if options.command == "sample":
        sample(options.table, options.rows)
    else:
        compare(options.folder, options.table, options.base)


if __name__ == "__main__":
    main()
