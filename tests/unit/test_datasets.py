"""The settings of docs/datasets.md read look-alikes of the data sets row by row."""

from __future__ import annotations

import re
from pathlib import Path

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

PAGE = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")
SETTINGS = dict(re.findall(r"```yaml\n# ([^\n]+)\n(.*?)```", PAGE, flags=re.S))
ROWS = 240


def read(name: str, writer: str, folder: Path, monkeypatch: pytest.MonkeyPatch, task: str = "qi") -> PreparedTask:
    """Write a look-alike, and read it with the settings of the page."""
    datasets.WRITERS[writer](folder, ROWS)
    monkeypatch.chdir(ROOT)
    sections = parse_yaml(SETTINGS[name], "docs/datasets.md")
    data = config.build_section(Data, {**sections["data"], "path": str(folder)}, "data")
    return prepare_task(data, config.build_section(Prepare, sections.get("prepare", {}), "prepare"), task)


def expected(rows: list[datasets.Judgement], relevant: int = 3) -> set[tuple[str, str, str, int]]:
    """Language, query, title and label of each pair."""
    return {(row.language, row.query, row.title, int(row.grade >= relevant)) for row in rows}


def pairs(table: pd.DataFrame) -> set[tuple[str, str, str, int]]:
    return set(table[["language", "origin_query", "candidate", "label"]].astype({"label": int}).itertuples(index=False, name=None))


def test_every_block_of_the_page_with_a_name_is_tested() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in SETTINGS if f'read("{name}"' not in source] == []


def test_esci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = read("ESCI", "esci", tmp_path, monkeypatch)
    small = [row for row in datasets.judgements(ROWS, datasets.LANGUAGES) if row.query_id % 3]
    assert pairs(prepared.tables["train"]) == expected([row for row in small if row.query_id % 4])
    assert pairs(prepared.tables["test"]) == expected([row for row in small if row.query_id % 4 == 0])
    assert set(prepared.tables["train"]["grade"]) == {"E", "S", "C", "I"}
    assert set(prepared.tables["train"]["language_tag"]) == {"us", "es", "jp"}


def test_a_merged_file_of_esci_gives_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_query = read("ESCI", "esci", tmp_path, monkeypatch)
    examples, products = (pd.read_parquet(tmp_path / f"shopping_queries_dataset_{name}.parquet") for name in ("examples", "products"))
    examples.merge(products, on=["product_id", "product_locale"]).to_parquet(tmp_path / "merged.parquet")
    merged = read("ESCI, merged", "esci", tmp_path, monkeypatch)
    for split in ("train", "test"):
        first, second = (prepared.tables[split].sort_values("id", ignore_index=True) for prepared in (by_query, merged))
        pd.testing.assert_frame_equal(first, second)


def test_wands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = read("WANDS", "wands", tmp_path, monkeypatch)
    assert pairs(items.tables["train"]) == expected(datasets.judgements(ROWS))
    categories = read("WANDS", "wands", tmp_path, monkeypatch, "qc").tables["train"]
    assert {" / ".join(path.split("/")) for _, _, _, path in datasets.KINDS} >= set(categories["candidate"])
    assert {len(levels) for levels in categories["levels"]} == {2, 3, 4}
    assert set(categories["label"]) == {0, 1}


def test_home_depot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = read("Home Depot", "home-depot", tmp_path, monkeypatch).tables["train"]
    assert len(train) == ROWS
    assert train["candidate"].str.contains("½").all()
    assert [float(grade) >= 2.33 for grade in train["grade"]] == (train["label"] == 1).tolist()
    assert set(train["language"]) == {"en"}


def test_crowdflower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pairs(read("CrowdFlower", "crowdflower", tmp_path, monkeypatch).tables["train"]) == expected(datasets.judgements(ROWS))


def test_quepid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = read("Quepid", "quepid", tmp_path, monkeypatch)
    records = datasets.judgements(ROWS)
    ratings = {(row.query, row.title): [row.grade - 1] for row in records}
    for row in records[::10]:
        ratings[row.query, row.title].append(max(0, row.grade - 2))
    mean = {pair: sum(values) / len(values) for pair, values in ratings.items()}
    assert {(query, title, label) for _, query, title, label in pairs(prepared.tables["train"])} == {
        (*pair, int(value >= 2)) for pair, value in mean.items()
    }
    assert prepared.counts["train"]["judged_repeatedly"] == len(records[::10])


def test_ranking_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pairs(read("Ranking evaluation", "elasticsearch", tmp_path, monkeypatch).tables["train"]) == expected(datasets.judgements(ROWS))


def test_cikm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for task in ("qc", "qi"):
        prepared = read("CIKM", "cikm", tmp_path, monkeypatch, task)
        assert [len(prepared.tables[split]) for split in ("dev", "test")] == [ROWS // 4, ROWS // 4]
        assert prepared.tables["test"]["label"].isna().all()


def test_a_judgement_without_a_product_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.WRITERS["esci"](tmp_path, ROWS)
    products = pd.read_parquet(tmp_path / "shopping_queries_dataset_products.parquet")
    products.iloc[5:].to_parquet(tmp_path / "shopping_queries_dataset_products.parquet")
    monkeypatch.chdir(ROOT)
    data = config.build_section(Data, {**parse_yaml(SETTINGS["ESCI"], "docs/datasets.md")["data"], "path": str(tmp_path)}, "data")
    with pytest.raises(BrokenRows, match=r"queries/esci.*candidate: the field is missing"):
        prepare_task(data, Prepare(), "qi")
