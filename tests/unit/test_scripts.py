"""Warnings about language columns: country codes, scripts that a language does not use, queries in another language."""

from __future__ import annotations

import json
from itertools import product

import pandas as pd
import pytest

from babelcart.rows import languages, scripts
from babelcart.rows.countries import COUNTRIES, RARE_AS_LANGUAGES, THREE_LETTERS
from tests.support.imports import ROOT

NOUNS = {
    "en": "garden hose,kitchen knife,running shoes,winter jacket,coffee maker,shower curtain,baby stroller,screen protector",
    "de": "gartenschlauch,küchenmesser,laufschuhe,winterjacke,kaffeemaschine,duschvorhang,kinderwagen,displayschutzfolie",
    "pt": "mangueira de jardim,faca de cozinha,tênis de corrida,jaqueta de inverno,cafeteira,cortina de chuveiro,carrinho de bebê,capinha",
    "sv": "trädgårdsslang,kökskniv,löparskor,vinterjacka,kaffebryggare,duschdraperi,barnvagn,skärmskydd",
    "ru": "садовый шланг,кухонный нож,кроссовки для бега,зимняя куртка,кофеварка,штора для душа,детская коляска,защитное стекло",
    "uk": "садовий шланг,кухонний ніж,кросівки для бігу,зимова куртка,кавоварка,штора для душу,дитячий візок,захисне скло",
    "ar": "خرطوم حديقة,سكين مطبخ,أحذية الجري,سترة شتوية,آلة صنع القهوة,ستارة الحمام,عربة أطفال,واقي الشاشة",
    "ja": "ガーデンホース,キッチンナイフ,ランニングシューズ,冬のジャケット,コーヒーメーカー,シャワーカーテン,ベビーカー,画面保護フィルム",
    "zh": "花园水管,厨房刀具,跑步鞋,冬季夹克,咖啡机,浴帘,婴儿推车,屏幕保护膜",
    "ko": "정원 호스,주방 칼,운동화,겨울 자켓,커피 메이커,샤워 커튼,유모차,화면 보호 필름",
    "th": "สายยางรดน้ำ,มีดทำครัว,รองเท้าวิ่ง,เสื้อกันหนาว,เครื่องชงกาแฟ,ม่านห้องน้ำ,รถเข็นเด็ก,ฟิล์มกันรอย",
}
WORDS = {
    "en": "cheap,for men,best", "de": "günstig,für herren,beste", "pt": "barato,masculino,melhor", "sv": "billig,för män,bästa",
    "ru": "дешево,мужской,лучший", "uk": "дешево,чоловічий,найкращий", "ar": "رخيص,للرجال,أفضل", "ja": "安い,メンズ,人気",
    "zh": "便宜,男士,最好",
    "ko": "저렴한,남성용,인기", "th": "ราคาถูก,ผู้ชาย,ดีที่สุด",
}  # fmt: skip


def queries(language: str, count: int = 24) -> list[str]:
    return [f"{noun} {word}" for word, noun in product(WORDS[language].split(","), NOUNS[language].split(","))][:count]


def table(tag: str, texts: list[str], language: str | None = None) -> pd.DataFrame:
    return pd.DataFrame({"language": language or languages.iso_code(tag), "language_tag": tag, "origin_query": texts})


@pytest.mark.parametrize("language", NOUNS)
@pytest.mark.parametrize("count", [1, 8, 24])
def test_right_tags_give_no_warning(language: str, count: int) -> None:
    for tag in (language, f" {language.upper()} ", f"{language}-XX"):
        assert scripts.check_languages(table(tag, queries(language, count))) == []


def test_brands_in_latin_script_are_no_evidence() -> None:
    brands = ["iphone 15", "galaxy s24 ultra", "usb c", "ps5", "rtx 4090", "12345", "15 %"]
    for language in ("ja", "ko", "th", "ar", "ru"):
        assert scripts.check_languages(table(language, [*queries(language, 8), *brands])) == []
    for language in ("ja", "ko", "th", "ru"):
        assert scripts.check_languages(table(language, brands[:2])) == []


def test_the_sample_gives_no_warning() -> None:
    files = sorted((ROOT / "data").glob("*_Q?.txt"))
    if not files:
        pytest.skip("data/ does not exist; `dvc pull` fetches the sample")
    for path in files:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        tags = [row["language"] for row in rows]
        sample = pd.DataFrame(
            {"language": map(languages.iso_code, tags), "language_tag": tags, "origin_query": [row["origin_query"] for row in rows]}
        )
        assert scripts.check_languages(sample) == []


# The tag, the language of the queries, and parts of the warning.
WRONG = [
    ("UK", "en", ("`UK` is read as Ukrainian (24 rows)", "24 of 24 distinct queries", "mostly Latin", "the United Kingdom", "{UK: en}")),
    ("KR", "ko", ("`KR` is read as Kanuri", "mostly Hangul", "South Korea", "{KR: ko}")),
    ("kr", "en", ("`kr` is read as Kanuri", "South Korea", "{kr: ko}")),
    ("kr-KR", "ko", ("`kr-KR` is read as Kanuri", "{kr-KR: ko}")),
    ("SE", "sv", ("`SE` is read as Northern Sami", "Sweden", "{SE: sv}")),
    ("BR", "pt", ("`BR` is read as Breton", "Brazil", "{BR: pt}")),
    ("IN", "en", ("`IN` is read as Indonesian", "seem to be in English", "India", "{IN: en}")),
    ("CH", "de", ("`CH` is read as Chamorro", "Switzerland", "{CH: de}")),
    ("CA", "en", ("`CA` is read as Catalan", "seem to be in English", "Canada", "{CA: en}")),
    ("AR", "pt", ("`AR` is read as Arabic", "mostly Latin", "Argentina", "{AR: es}")),
    ("SA", "ar", ("`SA` is read as Sanskrit", "mostly Arabic", "Saudi Arabia", "{SA: ar}")),
    ("TW", "zh", ("`TW` is read as Twi", "Taiwan", "{TW: zh}")),
    ("id", "en", ("`id` is read as Indonesian", "seem to be in English", "{id: en}")),
    ("en", "ru", ("`en` is read as English", "mostly Cyrillic")),
    ("de", "en", ("`de` is read as German", "seem to be in English")),
    ("ru", "en", ("`ru` is read as Russian", "mostly Latin")),
    ("uk", "ru", ("`uk` is read as Ukrainian", "seem to be in Russian", "{uk: ru}")),
    ("ja", "zh", ("`ja` is read as Japanese", "seem to be in Chinese", "{ja: zh}")),
    ("th", "ko", ("`th` is read as Thai", "mostly Hangul", "{th: ko}")),
]


@pytest.mark.parametrize(("tag", "language", "parts"), WRONG, ids=[f"{tag}, {language}" for tag, language, _ in WRONG])
def test_a_wrong_tag_gives_one_warning_with_counts_and_the_setting(tag: str, language: str, parts: tuple[str, ...]) -> None:
    (warning,) = scripts.check_languages(pd.concat([table(tag, queries(language)), table("fr", ["gants"])]))
    assert [part for part in parts if part not in warning] == []
    assert "set `languages: {" in warning


def test_two_rows_are_enough_for_the_code_of_a_country() -> None:
    (warning,) = scripts.check_languages(table("UK", ["garden hose", "desk lamp"]))
    assert "2 of 2 distinct queries" in warning


@pytest.mark.parametrize(("tag", "language"), [("UK", "en"), ("KR", "ko"), ("us", "en"), ("BR", "pt"), ("shop 7", "de")])
def test_a_mapped_tag_is_right(tag: str, language: str) -> None:
    assert scripts.check_languages(table(tag, queries(language), language)) == []


@pytest.mark.parametrize("tag", ["NA", "PS", "BI", "MO", "SE", "KR", "BR", "IN", "ch", "SG"])
def test_codes_better_known_as_those_of_countries_are_reported(tag: str) -> None:
    (warning,) = scripts.check_languages(table(tag, ["red lamp", "garden hose", "dog bed"]))
    assert f"`{tag.upper()}` is also the code of {COUNTRIES[tag.lower()].name}" in warning


@pytest.mark.parametrize(("tag", "texts"), [("SR", ["crvena lampa", "baštensko crevo"]), ("gl", ["mangueira de xardín"]), ("my", ["မီးအိမ်"])])
def test_codes_of_languages_and_countries_are_no_warning_without_evidence(tag: str, texts: list[str]) -> None:
    assert scripts.check_languages(table(tag, texts)) == []


def test_a_tag_with_a_script_or_a_region_is_no_country() -> None:
    assert scripts.check_languages(table("br-FR", ["kontell", "levr"])) == []
    assert scripts.check_languages(table("hi-Latn", ["sasta mobile phone", "achha joota", "kitab ghar"])) == []
    assert scripts.check_languages(table("sr-Latn", [f"crevo za baštu {number}" for number in range(30)])) == []


def test_the_tables_have_only_language_codes() -> None:
    assert scripts.SCRIPTS.keys() <= languages.CODES
    assert len(scripts.SCRIPTS) > 150
    assert all(set(country.languages) <= languages.CODES for country in COUNTRIES.values())
    for code in (*RARE_AS_LANGUAGES, *THREE_LETTERS):
        country = COUNTRIES.get(code) or THREE_LETTERS[code]
        assert languages.iso_code(code) not in (None, country.languages[0]), code
    assert scripts.check_languages(table("en", [])) == []


def test_the_scripts_of_the_quality_gate_agree() -> None:
    from babelcart.translation.gate import _SCRIPTS

    assert {language for language, expected in _SCRIPTS.items() if not set(expected) <= scripts.SCRIPTS[language]} == set()


def test_script_names_are_those_of_unicode() -> None:
    letters = {"LATIN": "é", "CYRILLIC": "ж", "ARABIC": "ش", "HANGUL": "김", "CJK": "家", "HIRAGANA": "か", "KATAKANA": "カ", "THAI": "ก"}
    assert {script: scripts.script_of(letter) for script, letter in letters.items()} == {script: script for script in letters}
    assert [scripts.script_of(character) for character in "1- ー٣"] == [""] * 5
