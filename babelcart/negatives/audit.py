"""Audit of sampled negatives: classifiers that look for shortcuts, similarities by kind of row, and example rows.

If a classifier can distinguish sampled from natural negatives by something that has no bearing on relevance, then a model may learn that
shortcut in place of relevance. Gururangan et al., "Annotation Artifacts in Natural Language Inference Data", 2018, found such artefacts
with the same method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from babelcart.embedding.similarity import Vectors, row_similarity

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# ROC AUC above which the stage warns; 0.5 is chance.
AUC_LIMIT = 0.65
# Rows of each kind below which a classifier is not fitted.
MIN_ROWS = 50
# Parts of the cross-validation; the rows must have at least as many groups.
FOLDS = 5
PROVENANCE = ("language", "source_language", "engine")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def shortcut_auc(natural: pd.DataFrame, sampled: pd.DataFrame, max_rows: int = 20_000) -> dict[str, dict[str, Any]]:
    """Measure how well three classifiers distinguish sampled from natural negatives.

    The classifiers see only the candidate, only the query, or only the provenance (language, source language and engine).

    Parameters
    ----------
    natural, sampled : pandas.DataFrame
        Rows of label 0, with the columns of a training set.
    max_rows : int
        Maximum number of rows of each kind; more rows are sampled with a fixed seed.

    Returns
    -------
    dict
        ``candidate``, ``query`` and ``provenance``, each with ``auc`` (5-fold cross-validation, grouped by query) and ``features``, the
        five with the largest weights. Empty if there are fewer than `MIN_ROWS` natural or sampled rows, or too few queries with both.
    """
    import numpy as np
    import pandas as pd
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.feature_extraction.text import TfidfVectorizer

    if min(len(natural), len(sampled)) < MIN_ROWS:
        return {}
    parts = [part.sample(min(max_rows, len(part)), random_state=0) for part in (natural, sampled)]
    rows = pd.concat(parts, ignore_index=True)
    is_sampled = np.repeat([0, 1], [len(part) for part in parts])  # (rows,)
    if not _can_be_divided(is_sampled, rows["group"]):
        return {}

    def ngrams(shortest: int, longest: int) -> TfidfVectorizer:
        return TfidfVectorizer(analyzer="char_wb", ngram_range=(shortest, longest), sublinear_tf=True, max_features=1 << 16)

    provenance = rows[[column for column in PROVENANCE if column in rows]].astype(str).to_dict("records")
    views: dict[str, tuple[Any, list[Any]]] = {
        "candidate": (ngrams(2, 4), list(rows["candidate"])),
        "query": (ngrams(1, 3), list(rows["origin_query"])),
        "provenance": (DictVectorizer(), provenance),
    }
    return {name: _classify(vectorizer, inputs, is_sampled, rows["group"]) for name, (vectorizer, inputs) in views.items()}


def _can_be_divided(is_sampled: np.ndarray, groups: pd.Series) -> bool:
    """Return whether a cross-validation that keeps groups together has both kinds of rows in each training part."""
    from sklearn.model_selection import GroupKFold

    if groups.nunique() < FOLDS:
        return False
    return all(len(set(is_sampled[train])) == 2 for train, _ in GroupKFold(FOLDS).split(is_sampled, groups=groups))


def _classify(vectorizer: Any, inputs: list[Any], is_sampled: np.ndarray, groups: pd.Series) -> dict[str, Any]:
    """Return the cross-validated AUC of a logistic regression, and its five features with the largest weights when fitted on all rows."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(vectorizer, LogisticRegression(C=1.0, max_iter=1000, class_weight="balanced"))
    probability = cross_val_predict(model, inputs, is_sampled, groups=groups, cv=GroupKFold(FOLDS), method="predict_proba")[:, 1]
    model.fit(inputs, is_sampled)
    strongest = np.argsort(-np.abs(model[-1].coef_[0]), kind="stable")[:5]
    names = model[0].get_feature_names_out()
    return {"auc": float(roc_auc_score(is_sampled, probability)), "features": [str(names[index]) for index in strongest]}


def shortcut_warnings(shortcuts: dict[str, dict[str, Any]]) -> list[str]:
    """Return one warning for each classifier of `shortcut_auc` whose AUC exceeds `AUC_LIMIT`."""
    return [
        f"a classifier that sees only the {name} distinguishes sampled from natural negatives with ROC AUC {shortcut['auc']:.2f} "
        f"(limit: {AUC_LIMIT}); its strongest features are {shortcut['features']}"
        for name, shortcut in shortcuts.items()
        if shortcut["auc"] > AUC_LIMIT
    ]


def _rows_by_kind(rows: pd.DataFrame, sampled: pd.DataFrame) -> dict[str, pd.DataFrame]:
    kinds = {"positive": rows[rows["label"] == 1], "natural_negative": rows[rows["label"] == 0]}
    return {**kinds, **{kind: sampled[sampled["origin"] == kind] for kind in ("easy", "hard")}}


def training_set_report(rows: pd.DataFrame, sampled: pd.DataFrame, vectors: Vectors | None) -> dict[str, Any]:
    """Compare the training set before and after sampling.

    Parameters
    ----------
    rows : pandas.DataFrame
        The training set before sampling.
    sampled : pandas.DataFrame
        The sampled negatives.
    vectors : Vectors or None
        Vectors of `rows`; without them, the report has no similarities.

    Returns
    -------
    dict
        ``before`` and ``after``: the number of rows, the share of label 0 and the share of each language. ``similarity``: quantiles of
        the cosine similarity of query and candidate, for each kind of row. ``search_recall``: recall of an approximate search.
    """
    import numpy as np
    import pandas as pd

    report: dict[str, Any] = {}
    for name, table in (("before", rows), ("after", pd.concat([rows, sampled], ignore_index=True))):
        shares = table["language"].value_counts(normalize=True).sort_index()
        report[name] = {
            "rows": len(table),
            "negative_share": round(float((table["label"] == 0).mean()), 5),
            "language": {language: round(float(share), 5) for language, share in shares.items()},
        }
    if vectors is None:
        return report
    report["similarity"] = {}
    for kind, table in _rows_by_kind(rows, sampled).items():
        if len(table):
            quantiles = np.quantile(row_similarity(table, vectors), QUANTILES)
            report["similarity"][kind] = {
                f"q{round(100 * level):02d}": round(float(quantile), 3) for level, quantile in zip(QUANTILES, quantiles, strict=True)
            }
    if vectors.recall is not None:
        report["search_recall"] = round(vectors.recall, 4)
    return report


def example_rows(rows: pd.DataFrame, sampled: pd.DataFrame, vectors: Vectors | None, count: int = 10) -> dict[str, list[dict[str, Any]]]:
    """Return up to `count` evenly spaced rows of each kind, with the similarity of query and candidate (None without vectors)."""
    import numpy as np

    examples: dict[str, list[dict[str, Any]]] = {}
    for kind, table in _rows_by_kind(rows, sampled).items():
        spaced = table.iloc[np.linspace(0, len(table) - 1, min(count, len(table))).astype(int)] if len(table) else table
        similarities = row_similarity(spaced, vectors) if vectors is not None and len(spaced) else [None] * len(spaced)
        examples[kind] = [
            {
                "language": row.language,
                "query": row.origin_query,
                "candidate": row.candidate,
                "similarity": None if similarity is None else round(float(similarity), 3),
            }
            for row, similarity in zip(spaced.itertuples(), similarities, strict=True)
        ]
    return examples
