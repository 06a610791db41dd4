"""Can a sampled negative be told from a natural one by what should not matter? Then a model learns that instead of relevance.

Three classifiers see the candidate alone, the query alone, or the provenance alone (language, source language, engine). An AUC of 0.5
is chance; over `LIMIT` the stage warns. (Gururangan et al., "Annotation Artifacts in Natural Language Inference Data", 2018, found such
artefacts by the same means.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from babelcart.embedding.similarity import Vectors, row_similarity

if TYPE_CHECKING:
    import pandas as pd

AUC_LIMIT = 0.65
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PROVENANCE = ("language", "source_language", "engine")


def shortcut_auc(natural: pd.DataFrame, sampled: pd.DataFrame, most: int = 20_000) -> dict[str, dict[str, Any]]:
    """How well sampled negatives are told from natural ones.

    Parameters
    ----------
    natural, sampled : pandas.DataFrame
        Rows of label 0, with the columns of a training set.
    most : int
        Rows of each that are looked at, drawn with a fixed seed.

    Returns
    -------
    dict
        ``candidate``, ``query``, ``provenance`` -> ``auc`` (5-fold, folds by query), and ``features``, the five that give most away.
        Empty when either has fewer than 50 rows.
    """
    import numpy as np
    import pandas as pd
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    if min(len(natural), len(sampled)) < 50:
        return {}
    parts = [part.sample(min(most, len(part)), random_state=0) for part in (natural, sampled)]
    rows = pd.concat(parts, ignore_index=True)
    label = np.repeat([0, 1], [len(part) for part in parts])
    provenance = rows[[name for name in PROVENANCE if name in rows]].astype(str).to_dict("records")
    seen = {
        "candidate": (
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=1 << 16),
            list(rows["candidate"]),
        ),
        "query": (
            TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3), sublinear_tf=True, max_features=1 << 16),
            list(rows["origin_query"]),
        ),
        "provenance": (DictVectorizer(), provenance),
    }
    found: dict[str, dict[str, Any]] = {}
    for name, (features, values) in seen.items():
        model = make_pipeline(features, LogisticRegression(C=1.0, max_iter=1000, class_weight="balanced"))
        folds = GroupKFold(5)
        told = cross_val_predict(model, values, label, groups=rows["group"], cv=folds, method="predict_proba")[:, 1]
        model.fit(values, label)
        weights = model[-1].coef_[0]
        strongest = np.argsort(-np.abs(weights), kind="stable")[:5]
        names = model[0].get_feature_names_out()
        found[name] = {"auc": round(float(roc_auc_score(label, told)), 5), "features": [str(names[number]) for number in strongest]}
    return found


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
    """Give up to `count` evenly spaced rows of each kind, with the similarity of query and candidate (None without vectors)."""
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
