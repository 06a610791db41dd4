"""The settings of docs/datasets.md read look-alikes of the data sets row by row, and `babelcart inspect` finds settings for them."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from babelcart.core import config
from babelcart.core.files import parse_yaml
from babelcart.prepare import PreparedTask, prepare_task
from babelcart.reading.readers import BrokenRows
from babelcart.reading.sources import Data
from babelcart.rows.cleaning import Prepare
from tests.support import datasets
from tests.support.imports import ROOT
from tests.support.products import KINDS, LANGUAGES, Judgement, judgements
from tests.support.project import Project, run

PAGE = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")
SETTINGS = dict(re.findall(r"```yaml\n# ([^\n]+)\n(.*?)```", PAGE, flags=re.S))
ROWS = 240
Row = tuple[str, str, str, str, float, str]  # id, language, query, candidate, label, grade


def prepare(name: str, folder: Path, task: str = "qi") -> PreparedTask:
    """Read a folder with the settings of the page."""
    sections = parse_yaml(SETTINGS[name], "docs/datasets.md")
    data = config.build_section(Data, {**sections["data"], "path": str(folder)}, "data")
    return prepare_task(data, config.build_section(Prepare, sections.get("prepare", {}), "prepare"), task)


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that writes a look-alike and reads it with the settings of the page."""
    monkeypatch.chdir(ROOT)

    def write_and_prepare(name: str, writer: str, task: str = "qi") -> PreparedTask:
        datasets.WRITERS[writer](tmp_path, ROWS)
        return prepare(name, tmp_path, task)

    return write_and_prepare


def rows_of(table: pd.DataFrame) -> list[Row]:
    """Return the rows of a prepared table, sorted by id. A missing label is -1."""
    columns = table[["id", "language", "origin_query", "candidate", "label", "grade"]].assign(label=table["label"].astype(float).fillna(-1))
    return sorted(columns.itertuples(index=False, name=None))


def pairs(table: pd.DataFrame) -> Counter[tuple[str, str, str, float]]:
    return Counter(row[1:5] for row in rows_of(table))


def test_every_block_of_the_page_with_a_name_is_tested() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in SETTINGS if f'"{name}"' not in source] == []


def test_every_query_is_on_the_page() -> None:
    assert {f"queries/{path.name}" for path in (ROOT / "queries").glob("*.sql")} <= set(re.findall(r"queries/\w+\.sql", PAGE))


def esci_rows(records: list[Judgement], split: str) -> list[Row]:
    """Return the rows of the small version. The line of a row is its id."""
    return sorted(
        (str(number), row.language, row.query, row.product.title, float(row.grade == 3), datasets.esci_label(row))
        for number, row in enumerate(records)
        if datasets.in_small_version(row) and datasets.esci_split(row) == split
    )


def test_esci(read: Any) -> None:
    prepared = read("ESCI", "esci")
    records = judgements(ROWS, LANGUAGES)
    for split in ("train", "test"):
        assert rows_of(prepared.tables[split]) == esci_rows(records, split)
    assert set(prepared.tables["train"]["language_tag"]) == {"us", "es", "jp"}


def test_a_product_id_of_esci_is_of_one_locale(tmp_path: Path) -> None:
    datasets.esci(tmp_path, ROWS)
    products = pd.read_parquet(tmp_path / "shopping_queries_dataset_products.parquet")
    assert products.groupby("product_id")["product_locale"].nunique().max() == 3
    assert not products.duplicated(["product_id", "product_locale"]).any()


def test_a_merged_file_of_esci_gives_the_same_rows(read: Any, tmp_path: Path) -> None:
    by_query = read("ESCI", "esci")
    examples, products = (pd.read_parquet(tmp_path / f"shopping_queries_dataset_{name}.parquet") for name in ("examples", "products"))
    examples.merge(products, on=["product_id", "product_locale"]).to_parquet(tmp_path / "merged.parquet")
    merged = prepare("ESCI, merged", tmp_path)
    for split in ("train", "test"):
        first, second = (prepared.tables[split].sort_values("id", ignore_index=True) for prepared in (by_query, merged))
        pd.testing.assert_frame_equal(first, second)


@pytest.mark.parametrize(
    ("name", "writer", "file"),
    [
        ("ESCI", "esci", "shopping_queries_dataset_products.parquet"),
        ("WANDS", "wands", "product.csv"),
        ("Quepid, case", "quepid-case", "catalogue.jsonl"),
        ("Quepid, book", "quepid-book", "catalogue.jsonl"),
        ("Ranking evaluation", "elasticsearch", "catalogue.jsonl"),
    ],
)
def test_a_judgement_without_a_product_is_reported(read: Any, tmp_path: Path, name: str, writer: str, file: str) -> None:
    read(name, writer)
    if file.endswith(".parquet"):
        pd.read_parquet(tmp_path / file).iloc[5:].to_parquet(tmp_path / file)
    else:
        lines = (tmp_path / file).read_text(encoding="utf-8").splitlines(keepends=True)
        (tmp_path / file).write_text("".join([*lines[:1], *lines[6:]]), encoding="utf-8")
    with pytest.raises(BrokenRows, match=r"queries/.*candidate: the field is missing"):
        prepare(name, tmp_path)


def test_wands(read: Any) -> None:
    records = judgements(ROWS)
    expected = [(str(n), "en", r.query, r.product.title, float(r.grade == 3), datasets.wands_label(r)) for n, r in enumerate(records)]
    assert rows_of(read("WANDS", "wands").tables["train"]) == sorted(expected)
    assert any('"' in row.query for row in records)


def test_categories_of_wands(read: Any) -> None:
    table = read("WANDS", "wands", "qc").tables["train"]
    grades: dict[tuple[str, str], list[bool]] = {}
    for row in judgements(ROWS):
        if category := datasets.wands_category(row.product):
            grades.setdefault((row.query, category), []).append(row.grade == 3)
    expected = {(query, path, float(2 * sum(exact) > len(exact))) for (query, path), exact in grades.items()}
    assert {(row[2], row[3], row[4]) for row in rows_of(table)} == expected
    assert len(table) == len(expected)
    assert all(" / ".join(levels) == path.casefold() for levels, path in zip(table["levels"], table["candidate"], strict=True))


def test_home_depot(read: Any) -> None:
    table = read("Home Depot", "home-depot").tables["train"]
    records = judgements(ROWS + ROWS // 4)[:ROWS]
    expected = [
        (
            str(n),
            "en",
            r.query,
            datasets.home_depot_title(r),
            float(datasets.home_depot_grade(r) >= 2.33),
            str(datasets.home_depot_grade(r)),
        )
        for n, r in enumerate(records, 2)
    ]
    assert rows_of(table) == sorted(expected)
    assert table["candidate"].str.contains("½").any()


def test_descriptions_of_home_depot(read: Any) -> None:
    titles, described = (read(name, "home-depot").tables["train"] for name in ("Home Depot", "Home Depot, descriptions"))
    records = {str(n): r for n, r in enumerate(judgements(ROWS + ROWS // 4), 2)}
    assert {row[0]: (*row[1:3], *row[4:]) for row in rows_of(titles)} == {row[0]: (*row[1:3], *row[4:]) for row in rows_of(described)}
    for row in rows_of(described):
        assert row[3] == f"{datasets.home_depot_title(records[row[0]])} {records[row[0]].product.description[:200]}"


def test_crowdflower(read: Any) -> None:
    records = judgements(ROWS + ROWS // 4)[:ROWS]
    expected = [
        (str(n), "en", r.query, r.product.title, float(r.grade == 3), str(datasets.median_relevance(r))) for n, r in enumerate(records, 1)
    ]
    assert rows_of(read("CrowdFlower", "crowdflower").tables["train"]) == sorted(expected)


def test_a_case_of_quepid(read: Any) -> None:
    table = read("Quepid, case", "quepid-case").tables["train"]
    assert pairs(table) == Counter(("en", row.query, row.product.title, float(row.grade == 3)) for row in judgements(ROWS))
    assert set(table["grade"]) == {"0", "1", "2"}


def test_a_book_of_quepid(read: Any) -> None:
    prepared = read("Quepid, book", "quepid-book")
    ratings = {
        (row.query, row.product.title): [float(rating) for rating in datasets.book_ratings(row) if rating != ""] for row in judgements(ROWS)
    }
    expected = Counter(("en", *pair, float(sum(values) / len(values) >= 2)) for pair, values in ratings.items())
    assert pairs(prepared.tables["train"]) == expected
    assert prepared.counts["train"]["judged_repeatedly"] == sum(len(values) > 1 for values in ratings.values())


def test_ranking_evaluation(read: Any) -> None:
    table = read("Ranking evaluation", "elasticsearch").tables["train"]
    assert pairs(table) == Counter(("en", row.query, row.product.title, float(row.grade == 3)) for row in judgements(ROWS))


def test_cikm(read: Any) -> None:
    records = judgements(ROWS, LANGUAGES)
    for task in ("qc", "qi"):
        prepared = read("CIKM", "cikm", task)
        for split, chosen in (("dev", records[ROWS // 2 : ROWS * 3 // 4]), ("test", records[ROWS * 3 // 4 :])):
            table = prepared.tables[split]
            queries = [datasets.cikm_query(row) for row in chosen]
            expected = Counter(("vi" if language == "vn" else language, query) for language, query in queries)
            assert Counter(row[1:3] for row in rows_of(table)) == expected
            assert table["label"].isna().all()
    table = read("CIKM", "cikm", "qc").tables["train"]
    assert all(",".join(levels) == path for levels, path in zip(table["levels"], table["candidate"], strict=True))


def test_locales(read: Any) -> None:
    table = read("Locales", "locales").tables["train"]
    expected = Counter((row.language, row.query, row.product.title, float(row.grade == 3)) for row in judgements(ROWS, LANGUAGES))
    assert pairs(table) == expected


def test_products_are_invented_for_any_number_of_rows() -> None:
    assert len(KINDS) > 100
    assert judgements(2000) == judgements(3000)[:2000]
    assert len({row.query for row in judgements(2000)}) >= 300
    assert len(judgements(120_000)) == 120_000


@pytest.mark.parametrize(
    ("writer", "name", "unlabelled"),
    [
        ("wands", "WANDS", 0), ("home-depot", "Home Depot, descriptions", ROWS // 4), ("crowdflower", "", ROWS // 4),
        ("quepid-case", "Quepid, case", 0), ("locales", "Locales", 0),
    ],
)  # fmt: skip
def test_inspect_finds_settings_that_read_the_same_rows(project: Project, writer: str, name: str, unlabelled: int) -> None:
    folder = project.folder / "shop"
    folder.mkdir()
    datasets.WRITERS[writer](folder, ROWS)
    run("inspect", "shop", "--write")
    data = config.load("data", Data)
    found = prepare_task(data, Prepare(), "qi")
    assert len(found.tables["train"]) == ROWS
    assert sum(len(found.tables.get(split, ())) for split in ("dev", "test")) == unlabelled
    if name:
        assert pairs(found.tables["train"]) == pairs(prepare_in(ROOT, name, folder).tables["train"])


def prepare_in(root: Path, name: str, folder: Path) -> PreparedTask:
    """As `prepare`, with the queries of another project."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        return prepare(name, folder)


def test_inspect_reads_both_versions_of_esci(project: Project) -> None:
    folder = project.folder / "shop"
    folder.mkdir()
    datasets.esci(folder, ROWS)
    output = run("inspect", "shop", "--json").output
    content = json.loads(output[output.index("{") : output.rindex("\n}") + 2])
    assert content["problems"] == []
    assert content["data"]["qi"]["labels"] == {"E": 1, "S": 0, "C": 0, "I": 0}
    assert sum(content["rows"]["qi"][split]["rows"] for split in ("train", "test")) == ROWS
