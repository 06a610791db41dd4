"""Every join of two tables by a key, and every tolerance for missing rows, with the test of the case in which nothing matches."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.support.imports import ROOT

METHODS = {"merge", "merge_asof", "set_index", "isin", "reindex", "reindex_like", "get_indexer"}

# Module and function -> a test of it, or the reason why no row can be lost.
JOINS = {
    ("prepare.py", "join_labels"): "test_a_join_that_finds_nothing_is_an_error",
    ("compare.py", "pair_predictions"): "test_predictions_of_different_rows_are_refused",
    ("split.py", "split_rows"): "test_a_held_out_query_is_not_in_train_in_any_form",
    ("translation/augment.py", "choose_rows"): "selects the languages of a setting",
    ("experiments.py", "__init__"): "selects rows of a subset of languages; a subset without rows has no scores",
    ("scores/slices.py", "slice_masks"): "test_the_slices_of_each_group_cover_all_rows_once",
    ("reading/readers.py", "_read_file"): "orders columns, not rows",
    ("rows/table.py", "parse_table"): "compares labels with 0 and 1",
}
# Setting that lets rows or translations be missing -> the test of its limit.
TOLERANCES = {
    "max_broken_rows": "test_the_tolerance_for_broken_rows_holds_for_train_only",
    "contradictions": "test_empty_contradictory_and_duplicate_rows_are_dropped",
    "min_coverage": "test_translate_uses_the_memory_and_counts_missing_translations",
}


def calls(path: Path) -> set[str]:
    """Functions of a module that call one of `METHODS`."""
    functions = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)]
    return {
        function.name
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS
    }


def test_every_join_is_listed() -> None:
    package = ROOT / "babelcart"
    found_in = {(path.relative_to(package).as_posix(), name) for path in package.rglob("*.py") for name in calls(path)}
    found_in |= {(path.relative_to(ROOT).as_posix(), name) for path in (ROOT / "stages").glob("*.py") for name in calls(path)}
    assert found_in == set(JOINS)


def test_the_listed_tests_exist() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = [name for name in (*JOINS.values(), *TOLERANCES.values()) if name.startswith("test_")]
    assert [name for name in named if f"def {name}(" not in tests] == []


def test_every_tolerance_is_a_setting() -> None:
    settings = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert [name for name in TOLERANCES if f"{name}:" not in settings] == []
