"""Tests of the sample data: same bytes as in git, format of the competition, labels that follow from meaning, and no trivial shortcuts."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

from tests.support.imports import ROOT

sys.path.insert(0, str(ROOT / "samples"))
import generate
import lexicon

from babelcart import baseline
from babelcart.prepare import prepare_task
from babelcart.reading.sources import Data, TaskFiles
from babelcart.rows.cleaning import Prepare
from babelcart.scores import metrics
from babelcart.translation.privacy import personal_data

LANGUAGES = {
    "QC": ({"en", "fr", "es", "ko", "pt", "ja"}, {"de", "it", "pl", "ar"}),
    "QI": ({"en", "fr", "es", "ko", "pt", "ja", "th"}, {"de", "it", "pl", "ar", "vn", "id"}),
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    generate.main(folder)
    return folder


def test_the_generator_writes_the_tracked_bytes(sample: Path) -> None:
    listing = (ROOT / "data.dvc").read_text(encoding="utf-8").split("md5: ")[1][:32]
    tree = json.loads((ROOT / "samples/remote/files/md5" / listing[:2] / f"{listing[2:]}.dir").read_text())
    hashes = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in sample.iterdir()}
    assert hashes == {entry["relpath"]: entry["md5"] for entry in tree}


def test_the_taxonomy_has_many_categories() -> None:
    entries = lexicon.read_products()
    assert len({entry.top for entry in entries}) >= 35
    assert sum(entry.kind != "group" for entry in entries) >= 300
    assert sum(", " in entry.path for entry in entries) > 30


@pytest.mark.parametrize("task", ["QC", "QI"])
def test_the_files_have_the_format_of_the_competition(sample: Path, task: str) -> None:
    native, unseen = LANGUAGES[task]
    for split in ("train", "dev", "test"):
        lines = [json.loads(line) for line in (sample / f"{split}_{task}.txt").read_text(encoding="utf-8").splitlines()]
        fields = ["id", "task", "language", "origin_query", generate.CANDIDATE[task], *(["label"] if split == "train" else [])]
        assert all(list(line) == fields for line in lines)
        assert {line["language"] for line in lines} == (native if split == "train" else native | unseen)
        assert len(lines) > (12_000 if split == "train" else 2_990)


def test_no_query_matches_the_patterns_of_personal_data(sample: Path) -> None:
    queries = {json.loads(line)["origin_query"] for path in sample.glob("*_Q?.txt") for line in path.open(encoding="utf-8")}
    assert len(queries) > 9000
    assert [query for query in queries if personal_data(query)] == []


@pytest.mark.parametrize("task", ["QC", "QI"])
def test_no_query_occurs_in_two_splits(sample: Path, task: str) -> None:
    queries = [
        {generate.normal(json.loads(line)["origin_query"]) for line in (sample / f"{split}_{task}.txt").open(encoding="utf-8")}
        for split in ("train", "dev", "test")
    ]
    assert not queries[0] & queries[1]
    assert not queries[0] & queries[2]
    assert not queries[1] & queries[2]


@pytest.mark.parametrize("task", ["QC", "QI"])
def test_the_baseline_cannot_predict_the_labels_of_unseen_languages(sample: Path, task: str) -> None:
    files = TaskFiles(train=f"train_{task}.txt", test=f"test_{task}.txt", test_labels=f"test_{task}_labels.csv")
    prepared = prepare_task(Data(path=str(sample), qc=files, qi=files), Prepare(), task.lower())
    train, test = prepared.tables["train"], prepared.tables["test"]
    assert 0.6 < train["label"].mean() < 0.72
    unseen = test[~test["language"].isin(train["language"].unique())]
    (probability,) = baseline.fit_predict(train, unseen)
    assert metrics.compute_scores(unseen["label"].to_numpy(), probability, 0.5)["auc"] < 0.65


def test_labels_follow_from_meaning() -> None:
    shop = generate.Shop()
    case = next(leaf for leaf in shop.leaves if leaf.fits == "phone" and leaf.kind == "accessory" and leaf.colored)
    writer = generate.Writer(shop, "test")
    need = generate.Need(case.path, color="black", device="iphone 13")
    right = writer.item(case.path, need)
    assert shop.item_answers(need, right)
    for _ in range(20):
        wrong = writer.conflict(need, case.path)
        assert not shop.item_answers(need, wrong)
    assert shop.category_answers(need, case.path)
    assert not shop.category_answers(need, case.of)
