"""Baseline: logistic regression on character n-grams of the query and of the candidate.

Its features include the cosine similarity of the n-grams of both texts, so that a model must do more than measure word overlap to beat it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from babelcart.core.errors import UserError
from babelcart.rows.text import normalise

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer


def fit_predict(train: pd.DataFrame, *others: pd.DataFrame) -> list[np.ndarray]:
    """Fit the baseline on labelled rows and predict p(relevant) for other rows.

    Character n-grams of one to four characters within words, TF-IDF with sublinear term frequencies, and L2 logistic regression with the
    defaults of scikit-learn: a common strong linear model for short texts.

    Parameters
    ----------
    train : pandas.DataFrame
        Columns ``origin_query``, ``candidate`` and ``label``.
    *others : pandas.DataFrame
        Columns ``origin_query`` and ``candidate``.

    Returns
    -------
    list of numpy.ndarray
        ``(rows,)`` float64 in [0, 1] for each of `others`.

    Raises
    ------
    UserError
        If all rows of `train` have the same label, or if their texts have no n-grams that occur twice.
    """
    from sklearn.linear_model import LogisticRegression

    if train["label"].nunique() < 2:
        raise UserError(
            f"all {len(train)} rows of train have the same label; the n-gram baseline needs relevant and irrelevant rows: "
            "add rows to the files in data.TASK.train of params.yaml"
        )
    features = _NgramFeatures()
    try:
        train_features = features.fit_transform(train)
    except ValueError as error:
        raise UserError(
            f"the n-gram baseline found no n-gram that occurs in two of the {len(train)} rows of train ({error}); "
            "add rows to the files in data.TASK.train of params.yaml"
        ) from error
    model = LogisticRegression(max_iter=2000)
    model.fit(train_features, train["label"].to_numpy(int))
    return [model.predict_proba(features.transform(rows))[:, 1] for rows in others]


class _NgramFeatures:
    """TF-IDF of the query's n-grams and of the candidate's n-grams, and the cosine similarity of both texts."""

    def __init__(self) -> None:
        self.query, self.candidate, self.both = _vectorizer(), _vectorizer(), _vectorizer()

    def fit_transform(self, rows: pd.DataFrame) -> csr_matrix:
        queries, candidates = _texts(rows)
        self.query.fit(queries)
        self.candidate.fit(candidates)
        self.both.fit(queries + candidates)
        return self.transform(rows)

    def transform(self, rows: pd.DataFrame) -> csr_matrix:
        """``(rows, query n-grams + candidate n-grams + 1)``, sparse."""
        import numpy as np
        from scipy import sparse

        queries, candidates = _texts(rows)
        similarity = np.asarray(self.both.transform(queries).multiply(self.both.transform(candidates)).sum(axis=1))  # (rows, 1)
        blocks = [self.query.transform(queries), self.candidate.transform(candidates), sparse.csr_matrix(similarity)]
        return sparse.hstack(blocks, format="csr")


def _texts(rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return the normal forms of the queries and of the candidates."""
    queries, candidates = ([normalise(text) for text in rows[name]] for name in ("origin_query", "candidate"))
    return queries, candidates


def _vectorizer() -> TfidfVectorizer:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), min_df=2, sublinear_tf=True, lowercase=False)
