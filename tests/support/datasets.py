"""Look-alikes of public data sets: their files, columns, types, separators and encodings, with invented rows.

python -m tests.support.datasets esci FOLDER --rows 3000
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import pandas as pd

from tests.support.products import LANGUAGES, Judgement, Product, judgements

LOCALES = {"en": "us", "es": "es", "ja": "jp"}  # ESCI
COUNTRIES = {"en": "UK", "es": "ES", "ja": "JP"}  # Amazon-M2
RATERS = ("Ana", "Boris", "chen@example.org")
# Queries of dev and test in a language that train lacks. The competition writes vn for Vietnamese.
VIETNAMESE = {
    "desk lamp": "đèn bàn", "office chair": "ghế văn phòng", "sofa": "ghế sofa", "area rug": "thảm trải sàn", "kettle": "ấm đun nước",
    "phone case": "ốp lưng điện thoại", "headphones": "tai nghe", "backpack": "ba lô", "rain jacket": "áo mưa", "yoga mat": "thảm yoga",
}  # fmt: skip


def esci(folder: Path, rows: int) -> None:
    """Amazon's Shopping Queries: examples and products in two Parquet files, joined by product and locale, and sources as CSV.

    Locales share product ids, for different products.
    """
    records = judgements(rows, LANGUAGES)
    examples = pd.DataFrame({
        "example_id": range(rows), "query": [row.query for row in records], "query_id": [row.query_id for row in records],
        "product_id": [_asin(row.product) for row in records], "product_locale": [LOCALES[row.language] for row in records],
        "esci_label": [esci_label(row) for row in records], "small_version": [int(in_small_version(row)) for row in records],
        "large_version": 1, "split": [esci_split(row) for row in records],
    })  # fmt: skip
    products = {(row.language, row.product.product_id): row.product for row in records}
    catalogue = pd.DataFrame({
        "product_id": [_asin(product) for product in products.values()], "product_title": [product.title for product in products.values()],
        "product_description": [product.description if product.product_id % 2 else None for product in products.values()],
        "product_bullet_point": None, "product_brand": [product.title.split(" ")[0] for product in products.values()],
        "product_color": None, "product_locale": [LOCALES[language] for language, _ in products],
    })  # fmt: skip
    examples.to_parquet(folder / "shopping_queries_dataset_examples.parquet")
    catalogue.sample(frac=1, random_state=0).to_parquet(folder / "shopping_queries_dataset_products.parquet")
    sources = ((query_id, "negations" if query_id % 7 == 0 else "other") for query_id in dict.fromkeys(row.query_id for row in records))
    _delimited(folder / "shopping_queries_dataset_sources.csv", ["query_id", "source"], sources)


def _asin(product: Product) -> str:
    return f"B{product.product_id:09}"


def esci_label(row: Judgement) -> str:
    """E, S, C or I."""
    return "C" if row.grade == 1 and row.product.product_id % 5 == 0 else {3: "E", 2: "S", 1: "I"}[row.grade]


def esci_split(row: Judgement) -> str:
    """Return the split of a query; ESCI has no query in both."""
    return "test" if row.query_id % 4 == 0 else "train"


def in_small_version(row: Judgement) -> bool:
    """Return whether ESCI's reduced version has the query."""
    return row.query_id % 3 > 0


def wands(folder: Path, rows: int) -> None:
    """Wayfair's WANDS: queries, products and labels, named .csv and tab-separated, with quotes around the texts that contain quotes."""
    records = judgements(rows)
    queries = {row.query_id: (row.query_id, row.query, _leaf(row.product)) for row in reversed(records)}
    products = {row.product.product_id: row.product for row in records}
    labels = [(index, row.query_id, row.product.product_id, wands_label(row)) for index, row in enumerate(records)]
    header = ["product_id", "product_name", "product_class", "category hierarchy", "product_description", "product_features",
              "rating_count", "average_rating", "review_count"]  # fmt: skip
    _delimited(folder / "query.csv", ["query_id", "query", "query_class"], sorted(queries.values()), delimiter="\t")
    _delimited(folder / "product.csv", header, map(_wands_product, products.values()), delimiter="\t")
    _delimited(folder / "label.csv", ["id", "query_id", "product_id", "label"], labels, delimiter="\t")


def _wands_product(product: Product) -> tuple[object, ...]:
    """Return a line of product.csv. Every fifth product is not rated."""
    ratings = (15.0, 4.5, 12.0) if product.product_id % 5 else ("", "", "")
    features = f"brand : {product.title.split(' ')[0]}|countryoforigin : us"
    return product.product_id, product.title, _leaf(product), wands_category(product), product.description, features, *ratings


def _leaf(product: Product) -> str:
    """Return the lowest level of the category path."""
    return product.category.rpartition("/")[2]


def wands_category(product: Product) -> str:
    """Return the category path, which some products lack."""
    return "" if product.product_id % 50 == 49 else product.category.replace("/", " / ")


def wands_label(row: Judgement) -> str:
    """Exact, Partial or Irrelevant."""
    return {3: "Exact", 2: "Partial", 1: "Irrelevant"}[row.grade]


def home_depot(folder: Path, rows: int) -> None:
    """Home Depot's search relevance: Latin-1 CSV with grades from 1 to 3, a test file without grades, descriptions and attributes."""
    records = judgements(rows + rows // 4)
    lines = [(number, row.product.product_id, home_depot_title(row), row.query) for number, row in enumerate(records, 2)]
    graded = [(*line, home_depot_grade(row)) for line, row in zip(lines[:rows], records[:rows], strict=True)]
    products = {row.product.product_id: row.product for row in records}
    header = ["id", "product_uid", "product_title", "search_term"]
    texts: dict[str, Any] = {"encoding": "latin-1", "quoting": csv.QUOTE_NONNUMERIC}
    _delimited(folder / "train.csv", [*header, "relevance"], graded, **texts)
    _delimited(folder / "test.csv", header, lines[rows:], **texts)
    descriptions = [(key, product.description) for key, product in products.items()]
    _delimited(folder / "product_descriptions.csv", ["product_uid", "product_description"], descriptions, **texts)
    attributes = [(key, name, value) for key, product in products.items() for name, value in _attributes(product)]
    _delimited(folder / "attributes.csv", ["product_uid", "name", "value"], attributes, **texts)


def home_depot_title(row: Judgement) -> str:
    """Return the title with inches written in several ways, and characters outside of ASCII."""
    return row.product.title if row.product.product_id % 3 else row.product.title.replace('"', "½ in.") + " 40°"


def home_depot_grade(row: Judgement) -> float:
    """Return the mean of several ratings, rounded to two digits."""
    return {3: (3, 2.67, 2.33), 2: (2, 2.25, 1.67), 1: (1, 1.33, 1.5)}[row.grade][row.product.product_id % 3]


def _attributes(product: Product) -> Iterator[tuple[str, str]]:
    yield "Bullet01", product.description
    yield "MFG Brand Name", product.title.split(" ")[0]


def crowdflower(folder: Path, rows: int) -> None:
    """CrowdFlower's search results relevance: two CSV files with HTML, quotes and line breaks in the descriptions."""
    records = judgements(rows + rows // 4)
    lines = [(number, row.query, row.product.title, _html(row.product)) for number, row in enumerate(records, 1)]
    graded = [(*line, median_relevance(row), 0.471 * (row.grade == 2)) for line, row in zip(lines[:rows], records[:rows], strict=True)]
    header = ["id", "query", "product_title", "product_description"]
    _delimited(folder / "train.csv", [*header, "median_relevance", "relevance_variance"], graded, quoting=csv.QUOTE_NONNUMERIC)
    _delimited(folder / "test.csv", header, lines[rows:], quoting=csv.QUOTE_NONNUMERIC)


def _html(product: Product) -> str:
    if product.product_id % 4 == 0:
        return ""
    return f'<p class="d">{product.description}</p>\r\n<ul><li>new, "boxed"</li>\n</ul>\n\n.style {{\n color: red;\n}}'


def median_relevance(row: Judgement) -> int:
    """1 to 4."""
    return {3: 4, 2: 2 + row.product.product_id % 2, 1: 1}[row.grade]


def quepid_case(folder: Path, rows: int) -> None:
    """The ratings of a Quepid case, and a catalogue as JSON Lines. A query without ratings has a line without document and rating."""
    records = judgements(rows)
    lines: list[tuple[object, ...]] = [(row.query, row.product.product_id, row.grade - 1) for row in records]
    lines.insert(4, ("unrated query", "", ""))
    _delimited(folder / "case_7_judgements.csv", ["query", "docid", "rating"], lines)
    _catalogue(folder / "catalogue.jsonl", records)


def quepid_book(folder: Path, rows: int) -> None:
    """The judgements of a Quepid book, with a column for each rater, and a catalogue as JSON Lines."""
    records = judgements(rows)
    lines = [(row.query, row.product.product_id, *book_ratings(row)) for row in records]
    _delimited(folder / "book_3_export.csv", ["query", "docid", *RATERS], sorted(lines, key=lambda line: str(line[0])))
    _catalogue(folder / "catalogue.jsonl", records)


def book_ratings(row: Judgement) -> list[float | str]:
    """Return the ratings of `RATERS`, 0 to 2; most documents are not judged by all."""
    judged = (True, row.product.product_id % 2 == 0, row.product.product_id % 10 == 0)
    ratings = (row.grade - 1, max(0, row.grade - 2), row.grade - 1)
    return [float(rating) if seen else "" for seen, rating in zip(judged, ratings, strict=True)]


def elasticsearch(folder: Path, rows: int) -> None:
    """The body of a request to Elasticsearch's ranking evaluation, and documents with ``_id`` and ``_source``, one a line."""
    records = judgements(rows)
    ratings: dict[str, list[dict[str, object]]] = {}
    for row in records:
        rating = {"_index": "products", "_id": str(row.product.product_id), "rating": row.grade - 1}
        ratings.setdefault(row.query, []).append(rating)
    requests = [
        {"id": f"query_{number}", "request": {"query": {"match": {"title": query}}}, "ratings": rated}
        for number, (query, rated) in enumerate(ratings.items())
    ]
    body = {"requests": requests, "metric": {"precision": {"k": 20, "relevant_rating_threshold": 2}}}
    (folder / "rank_eval.json").write_text(json.dumps(body, ensure_ascii=False, indent=2), encoding="utf-8")
    products = {row.product.product_id: row.product for row in records}
    documents = (
        {"_index": "products", "_id": str(key), "_source": {"title": product.title, "category": product.category.split("/")}}
        for key, product in products.items()
    )
    _json_lines(folder / "catalogue.jsonl", documents)


def cikm(folder: Path, rows: int) -> None:
    """The CIKM 2025 AnalytiCup: JSON Lines named .txt; dev and test lack labels, and have a language more than train."""
    for task, field in (("QC", "category_path"), ("QI", "item_title")):
        records = judgements(rows, LANGUAGES)
        quarters = {"train": records[: rows // 2], "dev": records[rows // 2 : rows * 3 // 4], "test": records[rows * 3 // 4 :]}
        for split, chosen in quarters.items():
            lines = []
            for number, row in enumerate(chosen, 1):
                language, query = (row.language, row.query) if split == "train" else cikm_query(row)
                candidate = row.product.category.lower().replace("/", ",") if task == "QC" else row.product.title
                fields = {"id": str(number), "task": task, "language": language, "origin_query": query, field: candidate}
                lines.append({**fields, "label": str(int(row.grade == 3))} if split == "train" else fields)
            _json_lines(folder / f"{split}_{task}.txt", lines)


def cikm_query(row: Judgement) -> tuple[str, str]:
    """Language tag and query of a row of dev or test; queries for some kinds of products are in Vietnamese."""
    names = [vietnamese for english, vietnamese in VIETNAMESE.items() if english in row.query]
    return ("vn", f"{names[0]} {row.query_id}") if names else (row.language, row.query)


def locales(folder: Path, rows: int) -> None:
    """A log with a column of countries, as Amazon-M2 writes them: UK, ES and JP."""
    lines = [(COUNTRIES[row.language], row.query, row.product.title, int(row.grade == 3)) for row in judgements(rows, LANGUAGES)]
    _delimited(folder / "log.csv", ["locale", "query", "title", "clicked"], lines)


def _delimited(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], *, encoding: str = "utf-8", **options: Any) -> None:
    """Write a delimited file; `options` are those of `csv.writer`."""
    with path.open("w", encoding=encoding, newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n", **options)
        writer.writerow(header)
        writer.writerows(rows)


def _catalogue(path: Path, records: Iterable[Judgement]) -> None:
    """Products as JSON Lines, with numbers as ids."""
    products = {row.product.product_id: row.product for row in records}
    lines = ({"id": key, "title": product.title, "category": product.category.split("/")} for key, product in products.items())
    _json_lines(path, lines)


def _json_lines(path: Path, records: Iterable[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "esci": esci, "wands": wands, "home-depot": home_depot, "crowdflower": crowdflower, "quepid-case": quepid_case,
    "quepid-book": quepid_book, "elasticsearch": elasticsearch, "cikm": cikm, "locales": locales,
}  # fmt: skip


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(sorted(WRITERS)))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--rows", type=int, default=2000, show_default=True)
def main(name: str, folder: Path, rows: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    WRITERS[name](folder, rows)


if __name__ == "__main__":
    main()
