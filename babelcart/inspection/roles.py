"""The meaning of the columns of a file: which of them holds the query, the candidate, the label and so on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from babelcart.inspection.tables import Column, Table
from babelcart.rows import languages

# Column of a row -> usual names, in the form of `_plain`, the best first.
NAMES: Mapping[str, tuple[str, ...]] = {
    "id": (
        "id", "example_id", "row_id", "judgement_id", "judgment_id", "pair_id", "rating_id", "sample_id", "annotation_id", "uid", "index",
        "_id", "record_id", "line_id", "unnamed_0",
    ),
    "language": (
        "language", "lang", "query_language", "query_lang", "language_code", "lang_code", "locale", "query_locale", "product_locale",
        "user_locale", "shop_locale", "item_locale", "market", "marketplace", "country", "country_code", "site", "region",
    ),
    "origin_query": (
        "origin_query", "query", "search_query", "search_term", "search_terms", "searchterm", "query_text", "querytext",
        "query_string", "keyword", "keywords", "search_keyword", "user_query", "raw_query", "search_phrase", "search_text", "search",
        "request", "q", "term", "phrase", "suchbegriff", "requete", "consulta", "zapytanie",
    ),
    "qi": (
        "item_title", "product_title", "title", "product_name", "item_name", "productname", "producttitle", "itemtitle", "doc_title",
        "document_title", "name", "offer_title", "listing_title", "sku_name", "product", "item", "document", "text",
        "candidate", "titel", "produkt", "titulo", "titre", "nom",
    ),
    "qc": (
        "category_path", "category_hierarchy", "category", "categories", "category_name", "cat_path", "categorypath", "breadcrumb",
        "breadcrumbs", "taxonomy", "taxonomy_path", "product_category", "item_category", "node_path", "leaf_category", "product_type",
        "kategorie", "categoria", "categorie",
    ),
    "label": (
        "label", "esci_label", "relevance", "relevance_label", "relevancy", "grade", "rating", "judgement", "judgment", "is_relevant",
        "relevant", "median_relevance", "relevance_score", "rel", "gain", "target", "class", "annotation", "score", "gold", "verdict",
        "clicked", "is_clicked", "purchased", "is_purchased",
    ),
    "split": ("split", "set", "subset", "fold", "partition", "dataset", "usage"),
}  # fmt: skip
_LONG_TEXTS = ("description", "product_description", "item_description", "desc", "body", "bullet_point", "product_bullet_point", "features")
_SPLITS = {
    "train": "train", "training": "train", "dev": "dev", "development": "dev", "val": "dev", "valid": "dev", "validation": "dev",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test", "holdout": "test", "heldout": "test",
}  # fmt: skip
MOST_CODES = 0.9  # share of the values from which a column holds codes
_LONGEST_CODE = 64


@dataclass
class Roles:
    """Columns of a file by meaning.

    Attributes
    ----------
    columns : dict of str to str
        ``id``, ``language``, ``origin_query``, ``qc``, ``qi``, ``label``, ``split`` -> column.
    guesses : dict of str to str
        Meaning -> why a column was chosen although its name does not tell.
    others : dict of str to str
        ``description`` -> column of long texts.
    """

    columns: dict[str, str] = field(default_factory=dict)
    guesses: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)

    def candidate(self, task: str) -> str | None:
        """The column of candidates of a task."""
        return self.columns.get(task)


def _plain(name: str) -> str:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"\W+", "_", spaced.casefold()).strip("_") or name


def is_known_name(name: str) -> bool:
    """Whether a text is a usual name of a column."""
    plain = _plain(name)
    return plain in _LONG_TEXTS or any(plain in names for names in NAMES.values()) or plain.endswith(("_id", "_title", "_name"))


def split_of_value(value: str) -> str | None:
    """The split that a value of a column or a part of a file name means: train, dev, test or None."""
    return _SPLITS.get(value.strip().casefold())


def split_of_name(name: str) -> str | None:
    """The split that the name of a file states, or None."""
    words = re.split(r"[^a-z]+", name.casefold())
    return next((split for word in words if (split := _SPLITS.get(word))), None)


def find_roles(table: Table) -> Roles:
    """Find the meaning of the columns of a file from their names, and where a name does not tell, from their content."""
    roles = Roles()
    plain = {_plain(name): name for name in reversed(table.columns)}
    for role, names in NAMES.items():
        for name in names:
            column = plain.get(name)
            if column is not None and column not in roles.columns.values() and _fits(role, table.columns[column], table.rows):
                roles.columns[role] = column
                break
    for name in _LONG_TEXTS:
        if name in plain:
            roles.others["description"] = plain[name]
            break
    _add_from_content(table, roles)
    return roles


def _fits(role: str, column: Column, rows: int) -> bool:
    """Whether the content of a column is possible for a meaning."""
    if role == "split":
        return bool(column.values) and any(split_of_value(value) for value in column.values)
    if role == "label":
        return len(column.values) > 1 or (column.filled > 0 and column.distinct > 1 and _numeric(column))
    if role == "language":
        return column.filled > 0 and column.longest <= 24 and bool(column.values)
    if role in ("qc", "qi") and is_code(column):
        return False
    if role in ("origin_query", "qc", "qi"):
        return column.filled > 0 and not _numeric(column) and not is_nested(column)
    return column.filled > 0 or not rows


def _numeric(column: Column) -> bool:
    texts = list(column.values) or list(column.samples)
    return bool(texts) and all(re.fullmatch(r"\s*[-+]?\d+(?:\.\d+)?\s*", text) for text in texts if text)


def _add_from_content(table: Table, roles: Roles) -> None:
    """Find the language, label, query and candidate by content, if the names of the columns do not tell them."""
    free = {name: column for name, column in table.columns.items() if name not in roles.columns.values()}
    if "language" not in roles.columns:
        for name, column in free.items():
            tags = [value for value in column.values if value]
            if tags and column.longest <= 8 and not _numeric(column) and all(len(tag) > 1 and languages.iso_code(tag) for tag in tags):
                roles.columns["language"] = name
                roles.guesses["language"] = f"the values of {name!r} are language codes"
                break
    if "qi" in roles.columns or "qc" in roles.columns:
        return
    if "origin_query" not in roles.columns and any(is_known_name(name) for name in table.columns):
        return
    texts = [column for name, column in free.items() if name not in roles.columns.values() and _is_text(column, table.rows)]
    wanted = 1 if "origin_query" in roles.columns else 2
    if len(texts) < wanted:
        return
    if wanted == 2:
        query = min(texts, key=lambda column: (column.mean_length, column.distinct))
        texts.remove(query)
        roles.columns["origin_query"] = query.name
        roles.guesses["origin_query"] = f"{query.name!r} has the shorter texts"
    candidate = next((column for column in texts if "title" in _plain(column.name) or "name" in _plain(column.name)), texts[0])
    task = "qc" if _looks_like_paths(candidate) else "qi"
    roles.columns[task] = candidate.name
    roles.guesses[task] = f"{candidate.name!r} has longer texts than the query"
    _add_label_from_content(table, roles)


def _add_label_from_content(table: Table, roles: Roles) -> None:
    if "label" in roles.columns:
        return
    for name, column in reversed(table.columns.items()):
        if name not in roles.columns.values() and 1 < len(column.values) <= 10 and column.filled and column.longest <= 12:
            roles.columns["label"] = name
            roles.guesses["label"] = f"{name!r} has {len(column.values)} different values"
            return


def _is_text(column: Column, rows: int) -> bool:
    if re.search(r"(^|_)(id|asin|sku|url|link|image|path|key|date|time|timestamp)$", _plain(column.name)):
        return False
    if is_nested(column):
        return False
    has_words = 2 * sum(" " in text or not text.isascii() for text in column.samples) > len(column.samples)
    return has_words and not _numeric(column) and column.distinct > min(20, rows // 4)


def is_code(column: Column) -> bool:
    """Return whether the values of a column are codes, such as article numbers, and not texts."""
    return column.codes > MOST_CODES and column.longest <= _LONGEST_CODE


def is_nested(column: Column) -> bool:
    """Whether the values of a column are lists or mappings of JSON."""
    return bool(column.samples) and all(text.startswith(('["', "[{", '{"', "[[")) or text in ("[]", "{}") for text in column.samples)


def _looks_like_paths(column: Column) -> bool:
    samples = column.samples
    return bool(samples) and all(re.search(r" > | / |\||[^ ]/[^ ].*/|,(?! )", text) for text in samples)
