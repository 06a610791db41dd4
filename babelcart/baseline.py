"""What a model has to beat: a logistic regression on character n-grams of the query and of the candidate.

It also sees how alike the two look (the cosine of their n-grams), so that word overlap alone earns nothing above it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from babelcart.core.errors import UserError
from babelcart.rows.text import normalise

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def fit_predict(train: pd.DataFrame, *others: pd.DataFrame) -> list[np.ndarray]:
    """Fit on labelled rows and give p(relevant) for the rows of other tables.

    Character n-grams of one to four characters inside word borders, TF-IDF with sublinear counts, L2 logistic regression
    with scikit-learn's defaults: the usual strong linear model for short texts.

    Parameters
    ----------
    train : pandas.DataFrame
        Columns ``origin_query``, ``candidate``, ``label``.
    *others : pandas.DataFrame
        The same without the label.

    Returns
    -------
    list of numpy.ndarray
        ``(rows,)`` in [0, 1] for each of `others`.
    """
    import numpy as np
    import scipy.sparse as sparse
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    def vectorizer() -> TfidfVectorizer:
        return TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), min_df=2, sublinear_tf=True, lowercase=False)

    query, candidate, both = vectorizer(), vectorizer(), vectorizer()
    texts = [[normalise(text) for text in train[name]] for name in ("origin_query", "candidate")]
    if train["label"].nunique() < 2:
        raise UserError(f"the {len(train)} rows of train have one label only: nothing can be told apart")
    try:
        query.fit(texts[0])
        candidate.fit(texts[1])
        both.fit(texts[0] + texts[1])
    except ValueError as error:
        raise UserError(f"the n-gram regression finds nothing to learn from in {len(train)} rows of train: {error}") from error

    def features(rows: pd.DataFrame) -> sparse.csr_matrix:
        q, c = ([normalise(text) for text in rows[name]] for name in ("origin_query", "candidate"))
        cosine = np.asarray(both.transform(q).multiply(both.transform(c)).sum(axis=1))
        return sparse.hstack([query.transform(q), candidate.transform(c), sparse.csr_matrix(cosine)], format="csr")

    model = LogisticRegression(max_iter=2000)
    model.fit(features(train), train["label"].to_numpy(int))
    return [model.predict_proba(features(rows))[:, 1] for rows in others]
