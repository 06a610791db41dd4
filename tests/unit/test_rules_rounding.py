"""No number that decides is rounded before it is used.

`REASONS` lists every place in babelcart/ and stages/ where a number can lose digits: calls of ``round``, formats with a number of decimals,
types with fewer digits than float64, clipping, and tolerances. Each has the reason why it decides nothing, or the test that covers it. A
place that is not listed fails `test_every_place_that_can_round_is_listed`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support.imports import ROOT

# A format specification with a number of digits: ``{x:.3f}``, ``{:+.1%}``, ``%.3f``.
PRECISION = re.compile(r"\.\d+[fFeEgG%]$")
TEMPLATE = re.compile(r"\{[^{}]*:[^{}]*\.\d+[fFeEgG%]\}|%\.\d+[fFeEgG]")
TYPES = {"float32", "float16", "bfloat16"}
SCRIPT = re.compile(r"toFixed|toPrecision|toExponential|Math\.(?:round|floor|ceil|trunc)|\|number\b|\|signed\b|%\.\d+f")


def kinds(node: ast.AST) -> Iterator[str]:
    """Yield the kinds of rounding that a node of a syntax tree can be."""
    if isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in ("round", "around", "rint", "trunc"):
            yield "round"
        if called in ("clip", "clamp", "nan_to_num"):
            yield "clip"
        if called in ("isclose", "allclose", "assert_close", "approx"):
            yield "tolerance"
        if called == "float" and isinstance(node.func, ast.Attribute):
            yield "float32"
        for keyword in node.keywords:
            if keyword.arg in ("float_format", "double_precision", "decimals", "precision"):
                yield "format"
            if keyword.arg in ("atol", "rtol", "xatol", "tol", "rel_tol", "abs_tol"):
                yield "tolerance"
    elif isinstance(node, ast.Attribute) and node.attr in TYPES:
        yield "float32"
    elif isinstance(node, ast.Constant) and isinstance(node.value, float) and 0 < abs(node.value) <= 1e-4:
        yield "tolerance"
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        if node.value in TYPES:
            yield "float32"
        if TEMPLATE.search(node.value):
            yield "format"
    elif isinstance(node, ast.FormattedValue):
        parts = ast.walk(node.format_spec) if node.format_spec else ()
        if any(PRECISION.search(str(part.value)) for part in parts if isinstance(part, ast.Constant)):
            yield "format"


def places_in(node: ast.AST, scope: str) -> Iterator[str]:
    """``scope: kind`` of every place below a node; docstrings are not places."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
        scope = f"{scope}.{node.name}" if "::" in scope else f"{scope}::{node.name}"
    yield from (f"{scope}: {kind}" for kind in kinds(node))
    for child in ast.iter_child_nodes(node):
        is_docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
        if not is_docstring:
            yield from places_in(child, scope)


def all_places() -> set[str]:
    """Return every place in the code of the library, the stages, and the page of the report."""
    found: set[str] = set()
    for folder in ("babelcart", "stages"):
        for path in sorted((ROOT / folder).rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if path.suffix == ".py":
                found |= set(places_in(ast.parse(path.read_text(encoding="utf-8")), name))
            elif path.suffix in (".js", ".html"):
                found |= {f"{name}: {match}" for match in SCRIPT.findall(path.read_text(encoding="utf-8"))}
    return found


# Number that decides -> the test that covers its way from its computation to its use.
DECISIONS = {
    "threshold of the task": "test_a_threshold_separates_the_rows_of_any_confident_model",
    "threshold of a language": "test_the_thresholds_of_languages_separate_the_rows_of_a_confident_model",
    "a fixed threshold of params.yaml": "test_a_fixed_threshold_is_used_with_all_its_digits",
    "thresholds that other stages read from metrics/": "test_a_confident_model_keeps_its_scores_in_every_stage",
    "p(relevant) in predictions/": "test_a_confident_model_keeps_its_scores_in_every_stage",
    "p(relevant) from the logits of the labels": "test_probabilities_are_distinct_up_to_the_limit_of_float64",
    "logits of the labels": "test_label_logits_of_a_bfloat16_model_are_computed_in_float32",
    "temperature": "test_the_temperature_of_a_confident_model_is_not_limited_by_clipping",
    "AUC or F1 by which the adapter is kept": "test_the_kept_adapter_is_chosen_by_unrounded_scores",
    "scores in metrics/, which other stages subtract and compare": "test_scores_are_not_rounded",
    "F1 and floor by which the card names the weakest language": "test_the_weakest_language_is_chosen_by_unrounded_scores",
    "distance from the threshold in the report": "test_the_rows_of_a_confident_model_keep_their_distance_from_the_threshold",
    "AUC that warns of a shortcut": "test_a_shortcut_is_reported_by_its_unrounded_auc",
    "a grade that a file stores in float16 or float32": "test_a_grade_is_compared_as_the_decimal_that_its_type_stores",
    "mean of the grades of a pair": "test_the_mean_of_grades_is_exact",
    "cosine similarities of the search for hard negatives": "test_the_search_is_exact_for_any_block_size_and_type",
}
# Reason why a place decides nothing, or the test that covers it -> places, as `places_in` names them.
REASONS = {
    "display only": [
        "babelcart/model/loading.py::cpu_warning: format",
        "babelcart/card.py::eval_results: format",
        "babelcart/card.py::format_score: format",
        "babelcart/card.py::score_table: format",
        "babelcart/commands/check.py::check_data: round",
        "babelcart/commands/experiments.py::run: format",
        "babelcart/commands/results.py::attack_table: format",
        "babelcart/commands/results.py::cells: format",
        "babelcart/compare.py::describe: format",
        "babelcart/experiments.py::_score_columns: format",
        "babelcart/inspection/joins.py::write_query: format",
        "babelcart/inspection/proposal.py::_Planner._query_sources: format",
        "babelcart/inspection/proposal.py::_Planner._query_sources: round",
        "babelcart/inspection/proposal.py::_percentages: format",
        "babelcart/inspection/summary.py::_percent: format",
        "babelcart/inspection/summary.py::_repetitions: round",
        "babelcart/inspection/summary.py::_rounded: round",
        "babelcart/inspection/verification.py::verify: format",
        "babelcart/negatives/audit.py::example_rows: round",
        "babelcart/negatives/audit.py::training_set_report: round",
        "babelcart/model/quantized.py::keep: format",
        "babelcart/plan.py::_format_duration: format",
        "babelcart/plan.py::assumptions: format",
        "babelcart/plan.py::order_lines: format",
        "babelcart/plan.py::plan_lines: format",
        "babelcart/plan.py::this_machine: format",
        "babelcart/published_example.py::main: format",
        "babelcart/report/page.py::_environment.number: format",
        "babelcart/training/memory.py::fit_to_memory: format",
        "babelcart/weights/hub.py::_check_disk: format",
        "babelcart/report/page.py::_environment.signed: format",
        "babelcart/report/report.html: %.3f",
        "babelcart/report/report.html: |number",
        "babelcart/report/report.html: |signed",
        "babelcart/report/common.js: toExponential",
        "babelcart/serving/page.js: toFixed",
        "babelcart/training/loop.py::Trainer.train: format",
        "babelcart/translation/augment.py::check_coverage: format",
    ],
    "displayed; test_the_weakest_language_is_chosen_by_unrounded_scores covers the choice": [
        "babelcart/card.py::_weakest_language: format",
    ],
    "seconds of a log": [
        "babelcart/commands/experiments.py::run_job: round",
    ],
    "seconds and memory of a log": [
        "babelcart/run.py::measure_run: round",
    ],
    "points of a chart, display only": [
        "babelcart/report/figures.py::_threshold_chart: round",
        "babelcart/report/figures.py::_training_charts: round",
        "babelcart/scores/metrics.py::_confusion_scores: round",
        "babelcart/scores/metrics.py::plot_tables: round",
        "babelcart/scores/metrics.py::precision_recall: round",
    ],
    "names of the dtypes of an option; test_the_merged_weights_have_the_dtype_of_the_option covers the weights": [
        "babelcart/commands/export.py: float32",
        "babelcart/export.py: float32",
    ],
    "number of pages": [
        "babelcart/report/report.js: Math.ceil",
    ],
    "number of decimals to display": [
        "babelcart/report/common.js: Math.floor",
    ],
    "displayed; test_the_rows_of_a_confident_model_keep_their_distance_from_the_threshold covers the filters": [
        "babelcart/report/report.js: toFixed",
        "babelcart/report/common.js: toFixed",
    ],
    "displayed; see test_a_probability_is_never_displayed_as_0_or_1_unless_it_is": [
        "babelcart/scores/formatting.py::format_probability: format",
        "babelcart/scores/formatting.py::format_probability: tolerance",
    ],
    "changes only 0 and 1; see test_the_temperature_of_a_confident_model_is_not_limited_by_clipping": [
        "babelcart/scores/metrics.py::_logit: clip",
    ],
    "whole numbers: words of a query": [
        "babelcart/scores/slices.py::slice_masks: clip",
    ],
    "points of a chart; test_the_kept_adapter_is_chosen_by_unrounded_scores covers the choice of the adapter": [
        "babelcart/training/curves.py::record_curves.log: round",
    ],
    "a conversion to more digits": [
        "babelcart/model/decoder.py::_angles: float32",
        "babelcart/published_example.py::p_relevant: float32",
        "babelcart/training/optimizer.py::MasterAdamW.__init__: float32",
    ],
    "a conversion to more digits, or back to the type of the model": [
        "babelcart/model/kernels.py::TrieAttention.backward: float32",
        "babelcart/model/kernels.py::TrieAttention.forward: float32",
        "babelcart/model/kernels.py::_attention_kernel: float32",
        "babelcart/model/kernels.py::_gated_backward_kernel: float32",
        "babelcart/model/kernels.py::_gated_kernel: float32",
        "babelcart/model/kernels.py::_key_gradient_kernel: float32",
        "babelcart/model/kernels.py::_normalise_backward_kernel: float32",
        "babelcart/model/kernels.py::_normalise_kernel: float32",
        "babelcart/model/kernels.py::_query_gradient_kernel: float32",
        "babelcart/model/kernels.py::_rotate_backward_kernel: float32",
        "babelcart/model/kernels.py::_rotate_kernel: float32",
        "babelcart/model/layers.py::_scale: float32",
        "babelcart/model/layers.py::Gather.backward: float32",
        "babelcart/model/layers.py::Norm.backward: float32",
        "babelcart/model/layers.py::Norm.forward: float32",
        "babelcart/model/layers.py::Norm.prepare: float32",
        "babelcart/model/layers.py::Rotate.backward: float32",
        "babelcart/model/layers.py::Rotate.forward: float32",
        "babelcart/model/packing.py::_block_attention: float32",
    ],
    "the type of the model or of the vectors, a setting; no number is converted after it was computed": [
        "babelcart/model/cost.py: float32",
        "babelcart/model/cost.py::dtype_bytes: float32",
        "babelcart/embedding/encoders.py::UseMultilingual._tokenize: float32",
        "babelcart/embedding/encoders.py::_float32: float32",
        "babelcart/embedding/encoders.py::_read_vectors: float32",
        "babelcart/embedding/encoders.py::embed_texts: float32",
        "babelcart/embedding/search.py::nearest: float32",
        "babelcart/model/loading.py::ModelSettings: float32",
        "babelcart/model/loading.py::for_this_machine: float32",
        "babelcart/plan.py: float32",
        "babelcart/published_example.py::main: float32",
        "babelcart/translation/engines.py::GenerativeEngine.loaded: float32",
        "babelcart/weights/fetching.py::convert: float32",
        "babelcart/weights/fetching.py::from_random: float32",
    ],
    "a conversion to more digits; see test_label_logits_of_a_bfloat16_model_are_computed_in_float32": [
        "babelcart/model/loading.py::label_logits: float32",
    ],
    "an estimated duration in seconds": [
        "babelcart/plan.py: tolerance",
    ],
    "avoids a division by 0 for a vector of zeros": [
        "babelcart/embedding/encoders.py::_unit: tolerance",
    ],
    "the choice is exact; see test_the_search_is_exact_for_any_block_size_and_type": [
        "babelcart/embedding/search.py::_CandidateIndex._coarse_best: float32",
        "babelcart/embedding/search.py::_CandidateIndex._error_bound: float32",
        "babelcart/embedding/search.py::_round: float32",
        "babelcart/embedding/search.py::fastest_search: float32",
    ],
    "displayed; test_a_shortcut_is_reported_by_its_unrounded_auc covers the warning": [
        "babelcart/negatives/audit.py::shortcut_warnings: format",
    ],
    "coarse on purpose: nearly equal guesses of `babelcart inspect` count as equal, so that the next criterion decides": [
        "babelcart/inspection/files.py::_regularity: round",
        "babelcart/inspection/proposal.py::_Planner._label_match: round",
    ],
    "a number of rows is whole": [
        "babelcart/translation/augment.py::choose_rows: round",
    ],
}
PLACES = {place: reason for reason, places in REASONS.items() for place in places}


def test_every_place_that_can_round_is_listed() -> None:
    unlisted, gone = all_places() - PLACES.keys(), PLACES.keys() - all_places()
    assert not unlisted, "add each to REASONS with the reason why it decides nothing, or with the test that covers it"
    assert not gone, "remove them from REASONS"


def test_every_test_that_the_tables_name_exists() -> None:
    named = set(re.findall(r"\btest_\w+", " ".join([*PLACES.values(), *DECISIONS.values()])))
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert {name for name in named if f"def {name}(" not in source} == set()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("threshold = round(best, 6)", "round"),
        ("table = table.round(3)", "round"),
        ("text = f'{threshold:.3f}'", "format"),
        ("text = '{:.1%}'.format(share)", "format"),
        ("text = '%.3f' % threshold", "format"),
        ("table.to_csv(path, float_format='%.6f')", "format"),
        ("probability = probability.astype(np.float32)", "float32"),
        ("probability = probability.astype('float32')", "float32"),
        ("same = np.isclose(first, second)", "tolerance"),
        ("same = abs(first - second) < 1e-6", "tolerance"),
        ("probability = np.clip(probability, low, high)", "clip"),
    ],
)
def test_a_place_is_found(code: str, kind: str) -> None:
    assert f"file.py::f: {kind}" in set(places_in(ast.parse(f"def f():\n    {code}"), "file.py"))
