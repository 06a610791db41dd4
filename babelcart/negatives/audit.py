"""Can a sampled negative be told from a natural one by what should not matter? Then a model learns that instead of relevance.

Three classifiers see the candidate alone, the query alone, or the provenance alone (language, source language, engine). An AUC of 0.5
is chance; over `LIMIT` the stage warns. (Gururangan et al., "Annotation Artifacts in Natural Language Inference Data", 2018, found such
artefacts by the same means.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

LIMIT = 0.65
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
