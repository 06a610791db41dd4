"""Look-alikes of public data sets, with their published files, columns, types, separators and encodings, and with invented rows.

python -m tests.support.datasets esci FOLDER --rows 3000
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import click
import pandas as pd

# Kind of product in English, Spanish and Japanese, and its category path, from the top level down.
KINDS = [
    ("garden hose", "manguera de jardín", "散水ホース", "Outdoor/Garden/Watering/Hoses"),
    ("sprinkler", "aspersor", "スプリンクラー", "Outdoor/Garden/Watering/Sprinklers"),
    ("lawn mower", "cortacésped", "芝刈り機", "Outdoor/Garden/Mowers"),
    ("patio umbrella", "sombrilla de patio", "ガーデンパラソル", "Outdoor/Patio/Umbrellas"),
    ("desk lamp", "lámpara de escritorio", "デスクライト", "Lighting/Lamps/Desk Lamps"),
    ("floor lamp", "lámpara de pie", "フロアライト", "Lighting/Lamps/Floor Lamps"),
    ("ceiling fan", "ventilador de techo", "シーリングファン", "Lighting/Ceiling Fans"),
    ("light bulb", "bombilla", "電球", "Lighting/Bulbs"),
    ("office chair", "silla de oficina", "オフィスチェア", "Furniture/Office Furniture/Chairs"),
    ("bar stool", "taburete de bar", "バースツール", "Furniture/Kitchen Furniture/Stools"),
    ("coffee table", "mesa de centro", "コーヒーテーブル", "Furniture/Living Room Furniture/Tables"),
    ("bookcase", "estantería", "本棚", "Furniture/Living Room Furniture/Bookcases"),
    ("area rug", "alfombra", "ラグ", "Décor/Rugs/Area Rugs"),
    ("wall mirror", "espejo de pared", "ウォールミラー", "Décor/Mirrors"),
    ("shower curtain", "cortina de ducha", "シャワーカーテン", "Bed & Bath/Bath/Shower Curtains"),
    ("bath towel", "toalla de baño", "バスタオル", "Bed & Bath/Bath/Towels"),
    ("pillow case", "funda de almohada", "枕カバー", "Bed & Bath/Bedding/Pillow Cases"),
    ("frying pan", "sartén", "フライパン", "Kitchen/Cookware/Pans"),
    ("kettle", "hervidor", "ケトル", "Kitchen/Small Appliances/Kettles"),
    ("kitchen knife", "cuchillo de cocina", "包丁", "Kitchen/Cutlery/Knives"),
    ("lunch box", "fiambrera", "弁当箱", "Kitchen/Storage/Lunch Boxes"),
    ("phone case", "funda de móvil", "スマホケース", "Electronics/Phones/Cases"),
    ("charging cable", "cable de carga", "充電ケーブル", "Electronics/Phones/Cables"),
    ("wireless mouse", "ratón inalámbrico", "ワイヤレスマウス", "Electronics/Computers/Mice"),
    ("headphones", "auriculares", "ヘッドホン", "Electronics/Audio/Headphones"),
    ("dog bed", "cama para perro", "犬用ベッド", "Pets/Dogs/Beds"),
    ("cat litter box", "arenero para gatos", "猫用トイレ", "Pets/Cats/Litter Boxes"),
    ("yoga mat", "esterilla de yoga", "ヨガマット", "Sports/Fitness/Mats"),
    ("dumbbell", "mancuerna", "ダンベル", "Sports/Fitness/Weights"),
    ("camping tent", "tienda de campaña", "キャンプテント", "Sports/Camping/Tents"),
    ("rain jacket", "chaqueta impermeable", "レインジャケット", "Clothing/Jackets"),
    ("running shoes", "zapatillas para correr", "ランニングシューズ", "Clothing/Shoes"),
]  # fmt: skip
LANGUAGES = ("en", "es", "ja")
# Words that queries and titles share, by language: colour, material, use.
ATTRIBUTES = [
    {"en": ["black", "white", "red", "blue", "green", "grey"], "es": ["negro", "blanco", "rojo", "azul", "verde", "gris"],
     "ja": ["黒", "白", "赤", "青", "緑", "グレー"]},
    {"en": ["small", "large", "compact", "foldable", "waterproof", "heavy duty"],
     "es": ["pequeño", "grande", "compacto", "plegable", "resistente al agua", "reforzado"],
     "ja": ["小型", "大型", "コンパクト", "折りたたみ", "防水", "業務用"]},
    {"en": ["for home", "for kids", "for travel", "gift", "cheap", "best"],
     "es": ["para casa", "para niños", "de viaje", "regalo", "barato", "mejor"],
     "ja": ["家庭用", "子供用", "旅行用", "ギフト", "安い", "人気"]},
]  # fmt: skip
BRANDS = ["Novara", "Kestrel", "Almira", "Tundra", "Ostro", "Quill", "Brisa", "Hikari"]


@dataclass(frozen=True)
class Judgement:
    """A query, a product and how well they match: 3 the same kind, 2 a kind of the same category, 1 another kind, with some errors."""

    query_id: int
    query: str
    product_id: int
    title: str
    description: str
    category: str  # levels joined by "/"
    grade: int
    language: str


def judgements(rows: int, languages: tuple[str, ...] = ("en",), seed: int = 0) -> list[Judgement]:
    """Invented judgements: four products for each query; one grade in twenty is wrong."""
    random = Random(seed)
    result: list[Judgement] = []
    queries: set[tuple[str, str]] = set()
    while len(result) < rows:
        language = random.choices(languages, weights=[3, *[1] * (len(languages) - 1)])[0]
        kind = random.choice(KINDS)
        query = _query(random, kind, language)
        if (language, query) in queries:
            continue
        queries.add((language, query))
        others = [other for other in KINDS if other is not kind]
        near = [other for other in others if other[3].split("/")[0] == kind[3].split("/")[0]]
        for other, grade in ((kind, 3), (kind, 3), (random.choice(near or others), 2), (random.choice(others), 1)):
            shown = random.choice((1, 2, 3)) if random.random() < 0.05 else grade
            title = _title(random, other, language)
            description = f"{title}. {random.choice(BRANDS)} quality, 100 % tested; size 5/8 in. x {random.randint(2, 99)} ft."
            result.append(Judgement(len(queries), query, 100_000 + len(result), title, description, other[3], shown, language))
    return result[:rows]


def _query(random: Random, kind: tuple[str, ...], language: str) -> str:
    words = [random.choice(attributes[language]) for attributes in random.sample(ATTRIBUTES, random.randint(1, 2))]
    parts = [kind[LANGUAGES.index(language)], *words]
    return " ".join(parts if language == "es" else reversed(parts))


def _title(random: Random, kind: tuple[str, ...], language: str) -> str:
    name = kind[LANGUAGES.index(language)]
    colour, size, use = (random.choice(attributes[language]) for attributes in ATTRIBUTES)
    return f'{random.choice(BRANDS)} {size} {name} {colour}, {random.randint(2, 60)}" {use}' if language == "en" else (
        f"{random.choice(BRANDS)} {name} {size} {colour} {random.randint(2, 60)} cm {use}"
    )  # fmt: skip


def esci(folder: Path, rows: int) -> None:
    """Amazon's Shopping Queries: examples and products in two Parquet files, joined by product and locale."""
    locale = {"en": "us", "es": "es", "ja": "jp"}
    records = judgements(rows, LANGUAGES)
    grades = {3: "E", 2: "S", 1: "I"}
    examples = pd.DataFrame({
        "example_id": range(rows), "query": [row.query for row in records], "query_id": [row.query_id for row in records],
        "product_id": [f"B{row.product_id:09}" for row in records], "product_locale": [locale[row.language] for row in records],
        "esci_label": ["C" if row.grade == 1 and row.product_id % 5 == 0 else grades[row.grade] for row in records],
        "small_version": [int(row.query_id % 3 > 0) for row in records], "large_version": 1,
        "split": ["test" if row.query_id % 4 == 0 else "train" for row in records],
    })  # fmt: skip
    products = pd.DataFrame({
        "product_id": examples["product_id"], "product_title": [row.title for row in records],
        "product_description": [row.description if row.product_id % 2 else None for row in records], "product_bullet_point": None,
        "product_brand": [row.title.split(" ")[0] for row in records], "product_color": None, "product_locale": examples["product_locale"],
    })  # fmt: skip
    examples.to_parquet(folder / "shopping_queries_dataset_examples.parquet")
    products.sample(frac=1, random_state=0).to_parquet(folder / "shopping_queries_dataset_products.parquet")


def wands(folder: Path, rows: int) -> None:
    """Wayfair's WANDS: tab-separated queries, products and labels, all named .csv."""
    records = judgements(rows)
    labels = {3: "Exact", 2: "Partial", 1: "Irrelevant"}
    queries = {row.query_id: row for row in records}
    _tab_separated(
        folder / "query.csv",
        "query_id\tquery\tquery_class",
        [(key, row.query, row.category.split("/")[-1]) for key, row in queries.items()],
    )
    columns = ("product_id", "product_name", "product_class", "category hierarchy", "product_description", "product_features",
               "rating_count", "average_rating", "review_count")  # fmt: skip
    products = [
        (
            row.product_id,
            row.title,
            row.category.split("/")[-1],
            row.category.replace("/", " / "),
            row.description,
            "color:red",
            15.0,
            4.5,
            15.0,
        )
        for row in records
    ]
    _tab_separated(folder / "product.csv", "\t".join(columns), products)
    _tab_separated(
        folder / "label.csv",
        "id\tquery_id\tproduct_id\tlabel",
        [(n, row.query_id, row.product_id, labels[row.grade]) for n, row in enumerate(records)],
    )


def _tab_separated(path: Path, header: str, rows: Iterable[tuple[object, ...]]) -> None:
    path.write_text("".join(f"{line}\n" for line in (header, *("\t".join(map(str, row)) for row in rows))), encoding="utf-8")


def home_depot(folder: Path, rows: int) -> None:
    """Home Depot's search relevance: latin-1 CSV with grades from 1 to 3, descriptions in a second file, and a test file without grades."""
    records = judgements(rows + rows // 4)
    grades = {3: (3, 2.67), 2: (2.33, 2), 1: (1, 1.33)}
    names = ["id", "product_uid", "product_title", "search_term"]
    values = [(n, row.product_id, row.title.replace('"', " in. ½"), row.query) for n, row in enumerate(records, 2)]
    train = [(*value, grades[row.grade][row.product_id % 2]) for value, row in zip(values, records, strict=True)][:rows]
    pd.DataFrame(train, columns=[*names, "relevance"]).to_csv(
        folder / "train.csv", index=False, encoding="latin-1", quoting=csv.QUOTE_NONNUMERIC
    )
    pd.DataFrame(values[rows:], columns=names).to_csv(folder / "test.csv", index=False, encoding="latin-1", quoting=csv.QUOTE_NONNUMERIC)
    descriptions = [(row.product_id, row.description) for row in records]
    pd.DataFrame(descriptions, columns=["product_uid", "product_description"]).to_csv(folder / "product_descriptions.csv", index=False)


def crowdflower(folder: Path, rows: int) -> None:
    """CrowdFlower's search results relevance: one CSV with HTML and line breaks in the descriptions, grades 1 to 4 and their variance."""
    records = judgements(rows)
    table = pd.DataFrame({
        "id": range(1, rows + 1), "query": [row.query for row in records], "product_title": [row.title for row in records],
        "product_description": [f'<p class="d">{row.description}</p>\n<ul><li>new, "boxed"</li></ul>' for row in records],
        "median_relevance": [row.grade + (row.grade == 3) for row in records],
        "relevance_variance": [0.471 * (row.grade == 2) for row in records],
    })  # fmt: skip
    table.to_csv(folder / "train.csv", index=False)


def quepid(folder: Path, rows: int) -> None:
    """A judgement list as Quepid exports it, with two ratings of some pairs, and a catalogue as JSON Lines."""
    records = judgements(rows)
    ratings = [(row.query, row.product_id, row.grade - 1) for row in records]
    ratings += [(row.query, row.product_id, max(0, row.grade - 2)) for row in records[::10]]
    pd.DataFrame(ratings, columns=["query", "docid", "rating"]).to_csv(folder / "judgements.csv", index=False)
    _catalogue(folder / "catalogue.jsonl", records)


def elasticsearch(folder: Path, rows: int) -> None:
    """Ratings in the form of Elasticsearch's ranking evaluation, one request a line, and a catalogue with ``_id`` and ``_source``."""
    records = judgements(rows)
    requests: dict[str, list[dict[str, object]]] = {}
    for row in records:
        requests.setdefault(row.query, []).append({"_index": "products", "_id": str(row.product_id), "rating": row.grade - 1})
    lines = (
        {"id": f"q{n}", "request": {"query": {"match": {"title": query}}}, "ratings": ratings}
        for n, (query, ratings) in enumerate(requests.items())
    )
    _json_lines(folder / "ratings.jsonl", lines)
    documents = (
        {"_index": "products", "_id": str(row.product_id), "_source": {"title": row.title, "category": row.category}} for row in records
    )
    _json_lines(folder / "catalogue.jsonl", documents)


def _catalogue(path: Path, records: list[Judgement]) -> None:
    _json_lines(path, ({"id": row.product_id, "title": row.title, "category": row.category.split("/")} for row in records))


def _json_lines(path: Path, records: Iterable[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def cikm(folder: Path, rows: int) -> None:
    """The CIKM 2025 AnalytiCup's files: JSON Lines named .txt; dev and test without labels, and in further languages."""
    for task, field in (("QC", "category_path"), ("QI", "item_title")):
        records = judgements(rows, LANGUAGES)
        for split, chosen in (
            ("train", records[: rows // 2]),
            ("dev", records[rows // 2 : 3 * rows // 4]),
            ("test", records[3 * rows // 4 :]),
        ):
            lines = []
            for n, row in enumerate(chosen, 1):
                candidate = row.category.lower().replace("/", ",") if task == "QC" else row.title
                fields = {"id": str(n), "task": task, "language": row.language, "origin_query": row.query, field: candidate}
                lines.append({**fields, "label": str(int(row.grade == 3))} if split == "train" else fields)
            _json_lines(folder / f"{split}_{task}.txt", lines)


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "esci": esci, "wands": wands, "home-depot": home_depot, "crowdflower": crowdflower, "quepid": quepid,
    "elasticsearch": elasticsearch, "cikm": cikm,
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
