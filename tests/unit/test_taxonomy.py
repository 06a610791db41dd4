"""The levels of category paths: finding the separator, reporting odd levels, and negatives that are no relatives of a positive."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from babelcart.embedding.encoders import EncoderSettings
from babelcart.embedding.similarity import embed_rows
from babelcart.negatives.sampling import SamplingSettings, sample_negatives
from babelcart.rows import taxonomy
from tests.support.imports import ROOT

PATHS = {
    ",": ["home & garden,kitchen, dining & bar,cups", "sports,yoga", "kitchen,dining & bar"],
    " / ": ["Furniture / Beds & Headboards / Beds", "TV/Video / Cables, Wires", "Rugs"],
    "/": ["Men/Tops/T-shirts", "Electronics/Computers & Tablets/Components, Parts", "Other"],
    " > ": ["Clothing > Hoodies", "Clothing > Shirts, Polos", "Accessories"],
    ">": ["Clothing>Hoodies", "Clothing > Shirts", "Accessories"],
    " >> ": ["Clothing >> Women's Clothing >> Swimwear", "Furniture >> Living Room"],
    "|": ["Tools & Home, Garden|Power Tools, Parts|Drills", "Toys|Dolls"],
    " | ": ["Tools | Drills", "Toys | Dolls"],
    " » ": ["Tools » Drills", "Toys » Dolls"],
    " › ": ["家電 › カメラ", "家電 › テレビ, オーディオ"],
    "＞": ["家電＞カメラ＞レンズ", "家電＞テレビ"],
    "::": ["Tools::Drills", "Toys::Dolls: Large"],
    " - ": ["Women - Shoes - Boots", "Men - T-Shirts"],
    "\\": ["Tools\\Drills", "Toys\\Dolls"],
    ";": ["Tools;Drills", "Toys;Dolls"],
    ", ": ["Home, Kitchen, Cups", "Home, Garden", "Toys"],
    " -> ": ["Home -> Kitchen", "Home -> Garden"],
    ".": ["electronics.smartphone", "appliances.kitchen.washer", "computers.notebook"],
}


@pytest.mark.parametrize("separator", PATHS)
def test_the_separator_is_found_from_the_paths(separator: str) -> None:
    paths = PATHS[separator]
    assert taxonomy.find_separator(paths) == separator
    assert max(len(taxonomy.levels(path, separator)) for path in paths) >= 2
    assert taxonomy.odd_levels(paths, separator) == []


@given(st.sampled_from(sorted(PATHS)), st.randoms())
def test_the_order_and_number_of_the_paths_do_not_matter(separator: str, generator: random.Random) -> None:
    paths = PATHS[separator] * 2
    generator.shuffle(paths)
    assert taxonomy.find_separator(iter(paths)) == separator


@given(st.sampled_from([",", " / ", "/", " > ", ">", "|", " | ", " » ", "::", "\\", " -> "]), st.data())
def test_the_levels_are_the_names_that_were_joined(separator: str, data: st.DataObject) -> None:
    names = st.sampled_from(["home & garden", "beds, frames & bases", "wi-fi", "café", "家具", "men's 2.0"])
    tree = data.draw(st.lists(st.lists(names, min_size=2, max_size=5), min_size=2, max_size=20))
    paths = [separator.join(path) for path in tree]
    assert taxonomy.find_separator(paths) == separator
    assert [taxonomy.levels(path, separator) for path in paths] == [tuple(path) for path in tree]


def test_a_flat_list_of_categories_has_one_level_and_is_reported() -> None:
    paths = ["Health, Household & Baby Care", "Electronics", "Toys & Games"]
    assert taxonomy.find_separator(paths) == ","
    assert [taxonomy.levels(path) for path in paths] == [(path.lower(),) for path in paths]
    (warning,) = taxonomy.odd_levels(paths, ",")
    assert warning.startswith("3 of 3 category paths have one level")
    assert "`separator`" in warning


def test_character_references_are_replaced_before_a_path_is_split() -> None:
    paths = ["Home &gt; Kitchen &amp; Dining", "Home > Garden"]
    assert taxonomy.find_separator(paths) == " > "
    assert taxonomy.levels(paths[0], " > ") == ("home", "kitchen & dining")
    assert taxonomy.levels("Tools & Co;Drills", ";") == ("tools & co", "drills")


@pytest.mark.parametrize(
    ("paths", "separator", "message"),
    [
        (["a > b", "c > d", "e,f"], ",", "2 of 3 category paths contain '>', but ',' separates their levels, as in 'a > b'"),
        (["Furniture / Beds", "Rugs / Area"], ",", "2 of 2 category paths contain '/'"),
        (["a,b", "c,d", "e / f"], ",", "1 of 3 category paths contain '/'"),
        ([",a,b", "c,d"], ",", "1 of 2 category paths have empty levels, which are left out, as in ',a,b'"),
        (["a,b,", "c,,d", "e,f"], ",", "2 of 3 category paths have empty levels"),
        (["a,b", "c," + 101 * "d"], ",", "1 of 2 category paths have a level of more than 100 characters"),
        ([*map(str, range(20)), "a,b"], ",", "20 of 21 category paths have one level, because they do not contain ','"),
        (["a|b", "c,d"], "::", "2 of 2 category paths have one level"),
    ],
)
def test_odd_levels_are_reported_with_counts(paths: list[str], separator: str, message: str) -> None:
    warnings = taxonomy.odd_levels(paths, separator)
    assert any(warning.startswith(message) for warning in warnings), warnings
    assert all("set `separator` in data" in warning for warning in warnings)


def test_related_categories() -> None:
    first, second = taxonomy.levels("a, b & c,d"), taxonomy.levels("A, b & c , d,e")
    assert first == ("a, b & c", "d")
    assert taxonomy.related(first, ["a, b & c", "d", "e"])
    assert not taxonomy.related(taxonomy.levels("a,b,c"), taxonomy.levels("a,b,d"))
    assert second != first
    assert not taxonomy.related((), first)
    assert taxonomy.levels(" ,,") == ()


def _rows(paths_of: dict[str, tuple[list[str], list[str]]], separator: str) -> pd.DataFrame:
    """Return rows of query -> relevant and other categories."""
    rows = [
        {
            "id": f"{query} {label} {index}", "group": query, "language": "en", "origin_query": query, "origin": "native",
            "candidate": path, "levels": list(taxonomy.levels(path, separator)), "grade": "", "label": label,
        }
        for query, by_label in paths_of.items()
        for label, paths in zip((1, 0), by_label, strict=True)
        for index, path in enumerate(paths)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("separator", [" / ", " > ", ",", "|"])
@pytest.mark.parametrize("siblings", [True, False])
def test_no_sampled_negative_is_a_relative_of_a_positive_with_any_separator(separator: str, siblings: bool, tmp_path: Path) -> None:
    tree = [[top, middle, leaf] for top in ("Furniture", "Rugs", "Lighting") for middle in ("Bedroom", "Living") for leaf in ("A, B", "C")]
    paths = sorted({separator.join(path[:depth]) for path in tree for depth in (1, 2, 3)})
    rows = _rows({f"query {index}": ([path], [paths[index - 5]]) for index, path in enumerate(paths)}, separator)
    chosen = SamplingSettings(strategy="easy", target_share=None, per_query=4, max_per_query=4, easy_ceiling=1.0, siblings=siblings)
    sampled, counts = sample_negatives(rows, "qc", chosen, 0, embed_rows(rows, EncoderSettings(kind="lexical"), tmp_path))
    assert len(sampled) > 50
    assert counts["refused"]["relative"] > 0
    positives = rows[rows["label"] == 1].set_index("group")["levels"]
    for row in sampled.itertuples():
        assert list(row.levels) == list(taxonomy.levels(row.candidate, separator))
        assert not taxonomy.related(row.levels, positives[row.group])
        assert siblings or list(row.levels)[:-1] != positives[row.group][:-1]


def test_only_the_reading_of_rows_splits_a_path() -> None:
    splitting = re.compile(r"taxonomy\.levels\(|import levels|find_separator\(")
    files = [path for folder in ("babelcart", "stages") for path in (ROOT / folder).rglob("*.py")]
    splitters = {path.relative_to(ROOT).as_posix() for path in files if splitting.search(path.read_text(encoding="utf-8"))}
    # slices.py counts levels, and page.py offers the branches of a list of categories that is not read as rows.
    assert splitters - {"babelcart/scores/slices.py", "babelcart/serving/page.py"} == {
        "babelcart/reading/readers.py",
        "babelcart/rows/taxonomy.py",
        "babelcart/inspection/proposal.py",
    }
