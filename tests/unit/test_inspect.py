"""`babelcart inspect`: what files are, the settings that read them, and what writing them changes."""

from __future__ import annotations

import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from babelcart.core.errors import UserError
from babelcart.core.files import parse_yaml
from babelcart.inspection import encodings, files, joins, params_file, proposal, tables
from babelcart.inspection.changes import compare_rows
from babelcart.inspection.labels import propose_labels
from babelcart.inspection.languages import map_tag
from babelcart.inspection.roles import find_roles
from tests.support.imports import ROOT
from tests.support.project import Project, run

QUERIES = {
    "en": ["garden hose for the yard", "small wooden desk lamp", "evening dress with long sleeves", "waterproof hiking boots", "dog bed"],
    "es": ["manguera de jardín barata", "lámpara de escritorio pequeña", "vestido de noche largo", "botas de montaña", "cama para perro"],
    "ja": ["庭のホース", "小さな木製の机", "長袖のドレス", "防水ハイキングブーツ", "犬用ベッド"],
    "de": ["gartenschlauch für den garten", "schreibtischlampe", "abendkleid mit langen ärmeln", "wasserdichte wanderschuhe", "hundebett"],
    "zh": ["花园软管", "小型木制台灯", "长袖晚礼服", "防水登山靴", "宠物狗床"],
    "pt": ["mangueira de jardim barata", "luminária de mesa pequena", "vestido de festa longo", "botas de caminhada", "cama para cachorro"],
}  # fmt: skip


def rows(language: str, number: int = 40) -> list[dict[str, Any]]:
    """Labelled rows with names of columns that a shop might use."""
    generator = random.Random(0)
    return [
        {
            "pair": index,
            "lang": language,
            "search_term": f"{generator.choice(QUERIES[language])} {index // 2}",
            "product_title": f"{generator.choice(QUERIES[language])}, model {index}",
            "relevance": generator.choice((0, 1)),
        }
        for index in range(number)
    ]


def delimited(records: list[dict[str, Any]], delimiter: str = ",", newline: str = "\n") -> str:
    lines = [
        delimiter.join(records[0]),
        *(delimiter.join(f'"{v}"' if delimiter in str(v) else str(v) for v in r.values()) for r in records),
    ]
    return "".join(f"{line}{newline}" for line in lines)


def inspected(*arguments: str, fails: bool = False) -> dict[str, Any]:
    output = run("inspect", *arguments, "--json", fails=fails).output
    content: dict[str, Any] = json.loads(output[output.index("{") : output.rindex("\n}") + 2])
    return content


@pytest.mark.parametrize(
    ("language", "encoding"),
    [
        ("es", "latin-1"), ("de", "cp1252"), ("de", "utf-16"), ("ja", "utf-16-le"), ("es", "utf-8-sig"), ("ja", "shift_jis"),
        ("zh", "gb18030"), ("en", "ascii"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimited_files_are_read_in_any_encoding(project: Project, language: str, encoding: str, delimiter: str) -> None:
    shop = project.folder / "shop"
    shop.mkdir()
    text = delimited(rows(language), delimiter)
    (shop / "rows.csv").write_bytes(text.encode(encoding))
    content = inspected("shop")
    assert content["problems"] == []
    assert content["rows"]["qi"]["train"]["kept"] == 40
    assert content["languages"]["qi"]["train"] == {language: 40}
    assert text.encode(encoding).decode(content["data"]["qi"].get("encoding", "utf-8")).removeprefix("\ufeff") == text


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.txt", "rows", "rows.parquet", "rows.data"])
def test_the_content_gives_the_format(project: Project, name: str) -> None:
    pandas = pytest.importorskip("pandas")
    (project.folder / "shop").mkdir()
    records = rows("en")
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()
    buffer = io.BytesIO()
    pandas.DataFrame(records).to_parquet(buffer)
    (project.folder / "shop" / name).write_bytes(buffer.getvalue() if name.endswith(("parquet", "data")) else lines)
    content = inspected("shop")
    assert content["problems"] == []
    assert content["rows"]["qi"]["train"]["kept"] == 40


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b'[\n{"a": 1}\n]\n', "is a JSON array"),
        (b'{\n "a": 1\n}\n', "on several lines"),
        (b'{"a": ' + b"[" * 20_000, "line 1 is JSON that is nested too deeply"),
        (b"PK\x03\x04damaged", "zip"),
        (b"\xff\xfe\0\0binary\0\0\0", "starts like utf-32"),
        (b"binary\0\1\0\0binary", "is neither text nor Parquet"),
        (b"PAR1 damaged", "is not a readable Parquet file"),
    ],
)
def test_other_content_is_refused_with_what_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(Exception, match=message):
        files.identify(path)


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x1e", "\x85", "\u2028", "\u2029"])
def test_only_line_breaks_separate_lines(project: Project, separator: str) -> None:
    """`str.splitlines` and the readers of `codecs` split at other characters as well, which Babelcart's readers do not."""
    shop = project.folder / "shop"
    shop.mkdir()
    records = [{**record, "product_title": f"{record['product_title']}{separator}{record['pair']}"} for record in rows("en")]
    (shop / "rows.csv").write_text(delimited(records).replace("product_title", f"product{separator}title", 1), encoding="utf-8")
    content = inspected("shop")
    assert content["rows"]["qi"]["train"]["kept"] == 40
    assert f"product{separator}title" in content["data"]["qi"]["columns"].values()
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (shop / "rows.csv").write_text(lines, encoding="utf-8")
    assert inspected("shop")["rows"]["qi"]["train"]["kept"] == 40


@pytest.mark.parametrize(
    ("header", "message"), [("query,Query,title", "'query' and 'Query' differ only in case"), ("query,query,title", "occurs twice")]
)
def test_ambiguous_columns_are_refused(tmp_path: Path, header: str, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"{header}\nlamp,lamp,desk lamp\n", encoding="utf-8")
    with tables.open_database() as database, pytest.raises(UserError, match=message):
        database.load(files.identify(path))


def test_a_damaged_parquet_file_is_refused_with_its_name(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "rows.parquet"
    pandas.DataFrame(rows("en") * 50).to_parquet(path)
    content = bytearray(path.read_bytes())
    content[8:200] = bytes(192)
    path.write_bytes(content)
    with tables.open_database() as database, pytest.raises(UserError, match="cannot be read completely"):
        database.load(files.identify(path))


def test_stray_quotes_are_characters(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('id,query,title,label\n1,"55 inch tv,Bracket 55",1\n2,tv 55",Wall mount,0\n3,plain,Hose,1\n', encoding="utf-8")
    assert files.identify(path).options.quoting == "none"


def test_a_file_without_a_header_line_gets_names(project: Project) -> None:
    (project.folder / "shop").mkdir()
    text = "".join(f"{r['pair']}\t{r['lang']}\t{r['search_term']}\t{r['product_title']}\t{r['relevance']}\n" for r in rows("en"))
    (project.folder / "shop/rows.tsv").write_text(text, encoding="utf-8")
    content = inspected("shop")
    assert content["data"]["qi"]["header"] == [f"column{index}" for index in range(1, 6)]
    assert content["rows"]["qi"]["train"]["kept"] == 40


def test_compressed_files_are_read(project: Project) -> None:
    (project.folder / "shop").mkdir()
    (project.folder / "shop/rows.csv.gz").write_bytes(gzip.compress(delimited(rows("en")).encode()))
    assert inspected("shop")["rows"]["qi"]["train"]["kept"] == 40


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["0", "1"], None),
        (["True", "False"], None),
        (["1.0", "0.0"], None),
        (["E", "S", "C", "I"], {"E": 1, "S": 0, "C": 0, "I": 0}),
        (["Exact", "Partial", "Irrelevant"], {"Exact": 1, "Partial": 0, "Irrelevant": 0}),
        (["1", "1.33", "1.67", "2", "2.33", "2.67", "3"], {"at_least": 2.33}),
        (["1", "2", "3", "4"], {"at_least": 3}),
        (["0", "1", "2", "3"], {"at_least": 2}),
        (["-1", "1"], {"1": 1, "-1": 0}),
        (["0", "1", "-1"], {"0": 0, "1": 1, "-1": None}),
        (["0", "1", ""], {"0": 0, "1": 1, "": None}),
        (["yes", "no", "unjudged"], {"yes": 1, "no": 0, "unjudged": None}),
        (["-3", "-2", "-1"], {"at_least": -1}),
        (["1e3", "1000.0", "0"], {"at_least": 1000}),
        (["0", "1", "2.3333333333333333333"], {"at_least": "2.3333333333333333333"}),
        (["-2", "-1", "0", "1", "2"], {"at_least": 1}),
        (["-2", "0", "1", "2"], {"at_least": 2, "-2": None}),
        (["none", "partial", "full"], {"none": 0, "partial": 0, "full": 1}),
        (["none", "relevant", "irrelevant"], {"relevant": 1, "irrelevant": 0, "none": None}),
        (["none", "0", "1"], {"0": 0, "1": 1, "none": None}),
        (["ja", "nein"], {"ja": 1, "nein": 0}),
        (["sí", "no"], {"sí": 1, "no": 0}),
        (["はい", "いいえ"], {"はい": 1, "いいえ": 0}),
    ],
)
def test_label_values_get_a_rule(values: list[str], labels: dict[str, Any] | None) -> None:
    assert propose_labels(dict.fromkeys(values, 1)).labels == labels


def test_unknown_labels_are_named_and_can_be_stated() -> None:
    assert propose_labels({"A": 1, "B": 1}).unknown == ("A", "B")
    assert propose_labels({"1" + "0" * 40: 1, "1": 1}).unknown == ("1" + "0" * 40,)
    assert propose_labels({"A": 1, "B": 1}, ["A"]).labels == {"A": 1, "B": 0}
    assert propose_labels({"1": 1, "2": 1, "3": 1}, ["3"]).labels == {"at_least": 3}


@pytest.mark.parametrize(
    ("tag", "language", "code"),
    [
        ("us", "en", "en"), ("jp", "ja", "ja"), ("UK", "en", "en"), ("BR", "pt", "pt"), ("es", "es", "es"), ("pt-BR", "pt", "pt"),
        ("german", "de", "de"), ("mx", "es", "es"), ("CH", "de", "de"), ("de_AT", "de", "de"),
    ],
)  # fmt: skip
def test_queries_decide_what_a_code_means(tag: str, language: str, code: str) -> None:
    assert map_tag(tag, QUERIES[language])[0] == code


@pytest.mark.parametrize(
    ("tag", "texts", "code"),
    [
        ("sr", ["crvena lampa", "baštensko crevo"], "sr"), ("gl", ["mangueira de xardín", "cama para cans"], "gl"),
        ("NA", QUERIES["en"], "en"),
        ("PS", ["مصباح طاولة أبيض", "خرطوم حديقة"], "ar"), ("SI", ["bela namizna svetilka", "vrtna cev zelena", "otroška postelja"], "sl"),
        ("bs", QUERIES["en"], "en"), ("LT", ["sodo žarna žalia", "medinis virtuvės stalas"], "lt"), ("km", ["រ៉ូបពណ៌ស", "ចង្កៀង"], "km"),
    ],
)  # fmt: skip
def test_languages_that_are_rarely_identified_keep_their_code(tag: str, texts: list[str], code: str) -> None:
    assert map_tag(tag, texts)[0] == code


def labelled_by_a_file(folder: Path) -> None:
    """Train rows with labels, test rows without, and the labels of test in a file of their own."""
    folder.mkdir()
    test = rows("en", 20)
    labels = [{"pair": record["pair"], "relevance": record.pop("relevance")} for record in test]
    for name, records in (("train", rows("en")), ("test", test), ("solution", labels)):
        (folder / f"{name}.csv").write_text(delimited(records).replace("pair", "pair_id", 1), encoding="utf-8")


def test_files_are_assigned_to_splits_with_their_labels(project: Project) -> None:
    labelled_by_a_file(project.folder / "shop")
    content = inspected("shop/*.csv")
    section = content["data"]["qi"]
    assert {split: section[split] for split in ("train", "test", "test_labels")} == {
        "train": ["train.csv"], "test": ["test.csv"], "test_labels": ["solution.csv"],
    }  # fmt: skip
    assert content["settings"]["split.test_share"] == 0.0
    assert content["rows"]["qi"]["test"]["labelled"] == 20


def test_test_rows_without_labels_are_dev(project: Project) -> None:
    labelled_by_a_file(project.folder / "shop")
    (project.folder / "shop/solution.csv").unlink()
    content = inspected("shop")
    assert content["data"]["qi"]["dev"] == ["test.csv"]
    assert "no labels" in content["guesses"]["data.qi.dev"]
    assert content["settings"]["split.test_share"] == proposal.TEST_SHARE


def test_a_split_column_gives_the_splits(project: Project) -> None:
    (project.folder / "shop").mkdir()
    records = [record | {"split": "train" if index < 30 else "test"} for index, record in enumerate(rows("en"))]
    (project.folder / "shop/rows.csv").write_text(delimited(records), encoding="utf-8")
    content = inspected("shop")
    assert content["data"]["qi"]["test"] == {"files": ["rows.csv"], "where": {"split": "test"}}
    assert content["rows"]["qi"]["test"]["rows"] == 10


def wands(folder: Path) -> None:
    """Three tab-separated files named .csv, as WANDS has them."""
    folder.mkdir(parents=True)
    queries = [{"query_id": index, "query": f"{text} {index}", "query_class": "x"} for index, text in enumerate(QUERIES["en"] * 4)]
    products = [
        {"product_id": index, "product_name": f"{text} {index}", "category hierarchy": "Furniture / Beds", "product_description": text * 9}
        for index, text in enumerate(QUERIES["en"] * 8)
    ]
    values = ("Exact", "Partial", "Irrelevant")
    labels = [{"id": index, "query_id": index % 20, "product_id": index % 37, "label": values[index % 3]} for index in range(200)]
    for name, records in (("query", queries), ("product", products), ("label", labels)):
        (folder / f"{name}.csv").write_text(delimited(records, "\t"), encoding="utf-8")


def proposed(folder: Path, task: str | None = None) -> proposal.Proposal:
    with tables.open_database() as database:
        loaded = [database.load(files.identify(path)) for path in files.expand((str(folder),))]
        return proposal.propose(database, loaded, proposal.Wishes(task))


def test_tables_with_a_common_key_are_joined_by_a_query(tmp_path: Path) -> None:
    wands(tmp_path / "wands")
    result = proposed(tmp_path / "wands")
    assert result.data["qi"]["train"] == ["queries/qi_train.sql"]
    query = result.queries["queries/qi_train.sql"]
    assert 'product."product_name"' in query
    assert 'judgements."query_id" = query."query_id"' in query
    assert result.problems == []
    assert "tasks" in result.reasons
    assert 'product."category hierarchy"' in proposed(tmp_path / "wands", "qc").queries["queries/qc_train.sql"]


def test_a_key_may_have_two_columns(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    examples = [
        {"example_id": i, "query": f"{QUERIES[code][i % 5]} {i}", "product_id": f"B{i % 30}", "product_locale": tag,
         "esci_label": "ESCI"[i % 4], "split": "train" if i < 150 else "test"}
        for i in range(200)
        for tag, code in [(("us", "en"), ("es", "es"), ("jp", "ja"))[i % 3]]
    ]  # fmt: skip
    products = {(r["product_id"], r["product_locale"]): f"title of {r['product_id']} {r['product_locale']}" for r in examples}
    pandas.DataFrame(examples).to_parquet(tmp_path / "examples.parquet")
    catalogue = [{"product_id": key, "product_locale": tag, "product_title": title} for (key, tag), title in products.items()]
    pandas.DataFrame([*catalogue, *(entry | {"product_locale": "xx"} for entry in catalogue[:9])]).to_parquet(tmp_path / "products.parquet")
    result = proposed(tmp_path)
    assert result.data["qi"]["languages"] == {"us": "en"}
    assert result.data["qi"]["test"] == ["queries/qi_test.sql"]
    assert 'judgements."product_locale" = products."product_locale"' in result.queries["queries/qi_train.sql"]


def shop(folder: Path, catalogue: dict[str, str], judgements: dict[str, Any]) -> None:
    """Write judgements with queries, and products in a file of their own.

    Parameters
    ----------
    catalogue : dict of str to str
        Column of the products -> its text, in which ``{}`` is the number of the product.
    judgements : dict
        Column of the judgements -> function of the number of the row.
    """
    folder.mkdir(parents=True)
    records = [{name: value(index) for name, value in judgements.items()} for index in range(120)]
    products = [{name: text.format(index) for name, text in catalogue.items()} for index in range(40)]
    (folder / "judgements.csv").write_text(delimited(records), encoding="utf-8")
    (folder / "products.csv").write_text(delimited(products), encoding="utf-8")


TEXTS = {"query": lambda i: f"{QUERIES['en'][i % 5]} {i % 30}", "label": lambda i: i % 3 % 2}


@pytest.mark.parametrize(
    ("product", "columns", "key"),
    [
        # Other ids have the same whole numbers as the products.
        ({"id": "{}"}, {"id": lambda i: i, "query_id": lambda i: i % 30, "product_id": lambda i: i * 7 % 40}, ("product_id", "id")),
        ({"id": "{}"}, {"user_id": lambda i: i % 40, "product_id": lambda i: i * 7 % 50}, ("product_id", "id")),
        ({"id": "{}"}, {"id": lambda i: i % 40, "position": lambda i: i % 40, "docid": lambda i: i * 3 % 40}, ("docid", "id")),
        ({"id": "{}", "sku": "S{}"}, {"id": lambda i: i, "sku": lambda i: f"S{i % 40}"}, ("sku", "sku")),
        ({"sku": "S-{}"}, {"product": lambda i: f"S-{i % 40}"}, ("product", "sku")),
        ({"productId": "{}"}, {"mainProductId": lambda i: i % 40, "queryId": lambda i: i % 30}, ("mainProductId", "productId")),
        ({"id": "{}"}, {"id": lambda i: i % 40}, ("id", "id")),
    ],
)
def test_the_names_of_columns_decide_by_which_key_tables_are_joined(
    tmp_path: Path, product: dict[str, str], columns: dict[str, Any], key: tuple[str, str]
) -> None:
    shop(tmp_path / "shop", {**product, "title": "red thing number {}"}, columns | TEXTS)
    result = proposed(tmp_path / "shop")
    assert result.problems == []
    assert f'ON judgements."{key[0]}" = products."{key[1]}"' in result.queries["queries/qi_train.sql"]


@pytest.mark.parametrize("name", ["query_id", "user_id", "session_id", "rank", "annotator_id", "qid"])
def test_ids_of_other_things_are_no_key_of_products(tmp_path: Path, name: str) -> None:
    shop(tmp_path / "shop", {"id": "{}", "title": "red thing number {}"}, {name: lambda i: i % 40} | TEXTS)
    with pytest.raises(UserError, match="no file has, or can be joined to"):
        proposed(tmp_path / "shop")


def test_a_key_that_its_name_does_not_prove_is_a_guess(tmp_path: Path) -> None:
    shop(tmp_path / "shop", {"sku": "{}", "title": "red thing number {}"}, {"product_id": lambda i: i % 40} | TEXTS)
    result = proposed(tmp_path / "shop")
    assert "-- guess: the names of the columns do not tell" in result.queries["queries/qi_train.sql"]
    assert any("(guess: " in remark for remark in result.remarks)


def test_a_key_that_several_rows_have_is_refused(tmp_path: Path) -> None:
    shop(tmp_path / "shop", {"product_id": "{}", "title": "red thing number {}"}, {"product_id": lambda i: i % 40} | TEXTS)
    with (tmp_path / "shop/products.csv").open("a") as handle:
        handle.write("7,another title\n")
    with pytest.raises(UserError, match="several rows have the same product_id, which product_id of judgements"):
        proposed(tmp_path / "shop")


def test_keys_that_differ_in_leading_zeros_are_named(tmp_path: Path) -> None:
    shop(tmp_path / "shop", {"product_id": "00{}", "title": "red thing number {}"}, {"product_id": lambda i: i % 40} | TEXTS)
    with pytest.raises(
        UserError, match=r"product_id differs from product_id of judgements\.csv in case, leading zeros or a trailing `\.0`: '0'"
    ):
        proposed(tmp_path / "shop")


def test_parts_of_a_catalogue_are_not_joined_alone(tmp_path: Path) -> None:
    shop(tmp_path / "shop", {"product_id": "{}", "title": "red thing number {}"}, {"product_id": lambda i: i % 80} | TEXTS)
    records = [{"product_id": index, "title": f"blue thing number {index}"} for index in range(40, 80)]
    (tmp_path / "shop/products2.csv").write_text(delimited(records), encoding="utf-8")
    (problem,) = proposed(tmp_path / "shop").problems
    assert problem.endswith("put the rows of these files into one file")


def test_files_that_are_not_used_are_named(tmp_path: Path) -> None:
    table = table_of(label=lambda i: i % 2)
    assert "notes.csv is not used" in proposed_for(tmp_path, train=table, notes="a,b\n1,x\n2,y\n").remarks


def test_queries_in_several_languages_without_a_column_are_mentioned(tmp_path: Path) -> None:
    records = [{"query": row["search_term"], "title": row["product_title"], "label": index % 2} for language in ("en", "ja")
               for index, row in enumerate(rows(language))]  # fmt: skip
    remarks = proposed_for(tmp_path, train=delimited(records)).remarks
    assert any("many queries seem to be in" in remark and "add a column of languages" in remark for remark in remarks)


def test_descriptions_are_joined_to_titles(tmp_path: Path) -> None:
    records = [{"id": r["pair"], "product_uid": i // 2, **{k: r[k] for k in ("product_title", "search_term")}, "relevance": 1 + i % 3}
               for i, r in enumerate(rows("en"))]  # fmt: skip
    (tmp_path / "train.csv").write_bytes(delimited(records).replace("desk", "café").encode("latin-1"))
    descriptions = [{"product_uid": index, "product_description": "a long text " * 30} for index in range(20)]
    (tmp_path / "product_descriptions.csv").write_text(delimited(descriptions), encoding="utf-8")
    query = proposed(tmp_path).queries["queries/qi_train.sql"]
    assert "encoding = 'latin-1'" in query
    assert f'left(product_descriptions."product_description", {joins.DESCRIPTION_LENGTH})' in query


def test_names_of_columns_tell_their_meaning(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(delimited(rows("en")), encoding="utf-8")
    with tables.open_database() as database:
        table = database.load(files.identify(tmp_path / "rows.csv"))
        assert find_roles(table).columns == {
            "language": "lang", "origin_query": "search_term", "qi": "product_title", "label": "relevance",
        }  # fmt: skip


def table_of(**columns: Any) -> str:
    """Sixty rows with queries and titles, and further columns: name -> function of the number of the row."""
    texts = {"query": lambda i: f"{QUERIES['en'][i % 5]} {i // 2}", "title": lambda i: f"{QUERIES['en'][i * 3 % 5]}, model {i} in blue"}
    return delimited([{name: value(index) for name, value in (texts | columns).items()} for index in range(60)])


def proposed_for(folder: Path, **contents: str) -> proposal.Proposal:
    """Return the proposal for files: name, with ``__`` for ``/`` -> content."""
    for name, content in contents.items():
        path = folder / f"{name.replace('__', '/')}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return proposed(folder)


def test_files_may_have_labels_under_different_names(tmp_path: Path) -> None:
    train, test = table_of(relevance=lambda i: i % 2), table_of(label=lambda i: i % 2)
    section = proposed_for(tmp_path, train=train, test=test).data["qi"]
    assert section["train"] == {"files": ["train.csv"], "columns": {"label": "relevance"}}
    assert section["test"] == ["test.csv"]
    assert "label" not in section["columns"]


def test_the_longer_texts_are_the_titles(tmp_path: Path) -> None:
    table = table_of(name=lambda i: ("Ann", "Bob", "Cy")[i % 3], label=lambda i: i % 2).replace("title", "product", 1)
    result = proposed_for(tmp_path, train=table)
    assert result.data["qi"]["columns"]["candidate"] == "product"
    assert "and not 'name'" in result.reasons["data.qi.columns"]


@pytest.mark.parametrize(
    ("columns", "label"),
    [
        ({"score": lambda i: 1 / (i + 2), "grade": lambda i: i % 4}, "grade"),
        ({"score": lambda i: 1 / (i + 2)}, None),
        ({"rating": lambda i: 3 + i % 20 / 10, "clicked": lambda i: i % 2}, "clicked"),
        ({"rating": lambda i: i % 5}, "rating"),
        ({"price": lambda i: i % 7, "position": lambda i: i % 10}, None),
        ({"position": lambda i: i % 10}, None),
        ({"in_stock": lambda i: ("yes", "no")[i % 2], "colour": lambda i: ("red", "blue")[i % 2]}, None),
        ({"relevantno": lambda i: ("da", "ne")[i % 2], "colour": lambda i: ("red", "blue")[i % 2]}, "relevantno"),
        ({"is_match": lambda i: i % 2, "brand": lambda i: ("a", "b", "c")[i % 3]}, "is_match"),
    ],
)
def test_labels_are_chosen_by_names_and_values(tmp_path: Path, columns: dict[str, Any], label: str | None) -> None:
    result = proposed_for(tmp_path, train=table_of(**columns))
    assert result.data["qi"]["columns"].get("label") == label
    assert any("no labels" in problem for problem in result.problems) == (label is None)


@pytest.mark.parametrize("values", [("si", "no"), ("da", "ne"), ("kg", "st"), ("is", "it"), ("no", "se")])
def test_words_and_units_are_no_languages(tmp_path: Path, values: tuple[str, str]) -> None:
    section = proposed_for(tmp_path, train=table_of(label=lambda i: i % 2, kind=lambda i: values[i % 2])).data["qi"]
    assert section["constants"] == {"language": "en"}


def test_a_column_of_language_codes_may_have_any_name(tmp_path: Path) -> None:
    result = proposed_for(tmp_path, train=table_of(label=lambda i: i % 2, x=lambda i: ("en", "pt-BR")[i % 2]))
    assert result.data["qi"]["columns"]["language"] == "x"


@pytest.mark.parametrize(("train", "test"), [(lambda i: i % 5, lambda i: i % 2), (lambda i: i % 2, lambda i: 1 + i % 5)])
def test_files_with_different_scales_are_refused(tmp_path: Path, train: Any, test: Any) -> None:
    problems = proposed_for(tmp_path, train=table_of(label=train), test=table_of(label=test)).problems
    assert any("With one rule for all" in problem and "set `labels` for each" in problem for problem in problems)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("split=train__part", "split=test__part"), ("train", "test")),
        (("entrenamiento", "prueba"), ("train", "test")),
        (("Trainingsdaten_train", "Testdaten"), ("train", "test")),
        (("训练集v2", "测试集v2"), ("train", "test")),
        (("обучение", "валидация"), ("train", "dev")),
        (("contest", "latest"), ("train", "train")),
    ],
)
def test_names_of_files_and_folders_state_splits(tmp_path: Path, names: tuple[str, str], splits: tuple[str, str]) -> None:
    section = proposed_for(tmp_path, **dict.fromkeys(names, table_of(label=lambda i: i % 2))).data["qi"]
    for name, split in zip(names, splits, strict=True):
        assert f"{name.replace('__', '/')}.csv" in section[split]


def test_folders_state_languages(tmp_path: Path) -> None:
    table = table_of(label=lambda i: i % 2)
    section = proposed_for(tmp_path, lang=table, **{"lang=de__part": table, "lang=pt-BR__part": table}).data["qi"]
    assert [source["constants"]["language"] for source in section["train"]] == ["en", "de", "pt"]


def test_a_split_column_without_known_splits_is_reported(tmp_path: Path) -> None:
    (remark,) = proposed_for(tmp_path, rows=table_of(label=lambda i: i % 2, split=lambda i: "AB"[i % 2])).remarks
    assert "the column 'split' is not used, because 'A', 'B' are no known splits" in remark


@pytest.mark.parametrize("title", ["Export of 2026-01-01\n\n", "Export of 2026-01-01,,\n", "Shop,2026,\n,,\n"])
def test_lines_before_the_names_of_columns_are_refused(tmp_path: Path, title: str) -> None:
    with pytest.raises(UserError, match=rf"line {title.count(chr(10)) + 1}: the names of the columns are here.*tail -n \+"):
        proposed_for(tmp_path, rows=title + table_of(label=lambda i: i % 2))


def test_written_settings_pass_the_check_and_keep_comments(project: Project) -> None:
    (project.folder / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (project.folder / "shop").mkdir()
    (project.folder / "shop/rows.csv").write_text(delimited(rows("en")), encoding="utf-8")
    before = Path("params.yaml").read_text(encoding="utf-8")
    run("inspect", "shop", "--write")
    after = Path("params.yaml").read_text(encoding="utf-8")
    removed = [line for line in before.splitlines() if line.strip().startswith("#") and line not in after.splitlines()]
    assert removed == []
    assert "# guess: " in after
    params = parse_yaml(after, "params.yaml")
    assert params["tasks"] == ["qi"]
    assert params["split"]["test_share"] == proposal.TEST_SHARE
    assert params["translate"]["memory"] == proposal.MEMORY
    assert {key: value for key, value in params.items() if key not in ("data", "tasks", "split", "translate")} == {
        key: value for key, value in parse_yaml(before, "before").items() if key not in ("data", "tasks", "split", "translate")
    }
    run("check")
    run("inspect", "shop", "--write")
    assert Path("params.yaml").read_text(encoding="utf-8") == after


def test_nothing_is_written_without_the_option_or_with_a_problem(project: Project) -> None:
    (project.folder / "shop").mkdir()
    (project.folder / "shop/rows.csv").write_text(delimited(rows("en")), encoding="utf-8")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    run("inspect", "shop")
    unknown = delimited([record | {"relevance": "AB"[index % 2]} for index, record in enumerate(rows("en"))])
    (project.folder / "shop/rows.csv").write_text(unknown, encoding="utf-8")
    before[Path("shop/rows.csv")] = unknown.encode()
    result = run("inspect", "shop", "--write", fails=True)
    assert "--relevant" in result.output
    run("inspect", "no/*.csv", "--write", fails=True)
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_files_of_the_project_itself_are_refused(project: Project) -> None:
    (project.folder / "rows.csv").write_text(delimited(rows("en")), encoding="utf-8")
    before = Path("params.yaml").read_bytes()
    result = run("inspect", "rows.csv", "--write", fails=True)
    assert "top folder" in result.output
    assert Path("params.yaml").read_bytes() == before


def test_few_broken_rows_are_allowed_and_named(project: Project) -> None:
    (project.folder / "shop").mkdir()
    text = delimited(rows("en")).splitlines(keepends=True)
    (project.folder / "shop/rows.csv").write_text("".join([*text[:20], "1,en,too few\n", *text[20:]]), encoding="utf-8")
    content = inspected("shop")
    assert content["settings"]["prepare.max_broken_rows"] == 1
    assert "line 21" in content["guesses"]["prepare.max_broken_rows"]


def test_equal_files_give_equal_proposals(project: Project) -> None:
    (project.folder / "shop").mkdir()
    (project.folder / "shop/rows.csv").write_text(delimited(rows("de")), encoding="utf-8")
    assert inspected("shop") == inspected("shop")


def test_the_competition_files_give_the_shipped_settings(project: Project) -> None:
    content = inspected("data")
    shipped = parse_yaml((ROOT / "params.yaml").read_text(encoding="utf-8"), "params.yaml")["data"]
    for task in ("qc", "qi"):
        section = {key: value for key, value in content["data"][task].items() if key != "separator"}
        assert section == shipped[task]
    assert content["settings"]["translate.memory"] == "data/memory.csv"


def test_settings_are_replaced_line_by_line() -> None:
    text = (
        "tasks: [qc]  # mine\n\n# Data.\ndata:\n  # Where.\n  path: a\n  qc:\n    train: [b]\n\n"
        "split:\n  # Share.\n  test_share: 0.5\nend: 1\n"
    )
    wanted = proposal.Proposal(
        data={"path": "shop", "qi": {"labels": {"0": 0, "yes, no": 1}, "train": ["a b.csv"]}},
        settings={"tasks": ["qi"], "split.test_share": 0.0, "split.seed": 3},
        reasons={"data.qi.labels": "a reason", "split.test_share": "another"},
    )
    changed = params_file.updated(text, wanted)
    assert changed == (
        "tasks: [qi]\n\n# Data.\ndata:\n  # Where.\n  path: shop\n  qi:\n    # guess: a reason\n    labels: {'0': 0, 'yes, no': 1}\n"
        "    train: [a b.csv]\n\nsplit:\n  # Share.\n  # guess: another\n  test_share: 0.0\n  seed: 3\nend: 1\n"
    )
    assert params_file.updated(changed, wanted) == changed


def test_isolated_high_bytes_are_western(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(("plain line\n" * 1000 + "crème brûlée, 45° café\n").encode("latin-1"))
    assert encodings.find_encoding(path)[0] == "latin-1"


def test_changes_of_rows_are_counted() -> None:
    pandas = pytest.importorskip("pandas")
    columns = ["language", "origin_query", "candidate", "label"]
    before = pandas.DataFrame([("en", "a", "x", 1), ("en", "b", "x", 0), ("de", "c", "x", 1)], columns=columns)
    after = pandas.DataFrame([("en", "A ", "x", 1), ("en", "b", "x", 1), ("fr", "d", "x", 1)], columns=columns)
    changes = compare_rows(before, after)
    assert (changes["added"], changes["removed"], changes["relabelled"]) == (1, 1, 1)
    assert changes["languages"] == {"de": [1, 0], "fr": [0, 1]}
    assert changes["examples"] == [["en", "b", "x", "0", "1"]]


def test_columns_may_have_any_name(project: Project) -> None:
    shop = project.folder / "shop"
    shop.mkdir()
    others = {"name": "a b", "value": 1, "rows": "x", "text": "y", "count": 2}
    records = [{"query": row["search_term"], "title": f"model {row['pair']}", "label": row["relevance"], **others} for row in rows("en")]
    (shop / "rows.csv").write_text(delimited(records))
    assert inspected("shop")["rows"]["qi"]["train"]["rows"] == 40


@pytest.mark.parametrize(
    ("encoding", "texts"),
    [
        ("latin-1", ["shelf 93½ in.", "lamp 40° warm", "pipe 5¼ in."]),
        ("latin-1", ["étagère en chêne", "lampe à poser"]),
        ("cp1252", ["Gartenstühle – weiß", "Küchenmöbel „modern“"]),
        ("cp1250", ["łóżko dla psa, materac", "żółta lampka nocna", "mała wieża narożna"]),
        ("cp1251", ["садовый шланг", "настольная лампа"]),
    ],
)
def test_encodings_of_single_bytes_are_distinguished(tmp_path: Path, encoding: str, texts: list[str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("".join(f"{index},{text}\n" for index, text in enumerate(texts * 20)).encode(encoding))
    assert encodings.find_encoding(path)[0] == encoding
