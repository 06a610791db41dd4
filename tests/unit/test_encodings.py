"""The encoding of files that are not UTF-8."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from babelcart.inspection.encodings import find_encoding
from babelcart.reading.encodings import detect_encoding

# Language -> its encodings, and texts of a shop.
TEXTS = {
    "de": (
        "cp1252 latin-1 iso8859-15 cp850 mac-roman",
        "Gartenstühle aus Holz / größe 42 schuhe für damen / Küchenmöbel weiß / Bürostuhl höhenverstellbar",
    ),
    "fr": (
        "cp1252 latin-1 iso8859-15 cp850 mac-roman",
        "étagère en chêne / lampe à poser dorée / canapé d'angle gris foncé / vêtements bébé garçon",
    ),
    "es": (
        "cp1252 latin-1 cp850 mac-roman",
        "zapatos de niño talla 30 / lámpara de pie salón / colchón viscoelástico / cortina baño pequeña",
    ),
    "pt": (
        "cp1252 latin-1 cp850",
        "luminária de mesa pequena / sofá retrátil três lugares / fogão elétrico com botões / calção de natação",
    ),
    "it": (
        "cp1252 latin-1 cp850",
        "lampada da terra perché città / caffè in grani qualità / tovaglia età moderna più grande / divano letto già montato",
    ),
    "sv": ("cp1252 latin-1 cp850", "trädgårdsmöbler i trä / barnsäng med lådor / köksö vit / skärbräda björk"),
    "da": ("cp1252 latin-1 cp850", "havemøbler i træ / børneseng med skuffer / køkkenø hvid / skærebræt birk"),
    "fi": (
        "cp1252 latin-1",
        "puutarhapöytä puinen / lastensänky laatikoilla / keittiösaareke valkoinen / leikkuulauta täyspuu",
    ),
    "is": (
        "cp1252 latin-1",
        "garðhúsgögn úr viði / barnarúm með skúffum / þvottavél hvít / ljósakróna með kristöllum",
    ),
    "pl": (
        "cp1250 iso8859-2 cp852",
        "łóżko dla psa / żółta lampka nocna / mała wieża narożna / węże ogrodowe ćwierć cala",
    ),
    "cs": (
        "cp1250 iso8859-2 cp852",
        "dětská postýlka bílá / zahradní hadice žlutá / křeslo čalouněné šedé / kuchyňský stůl dřevěný",
    ),
    "hu": (
        "cp1250 iso8859-2 cp852",
        "kerti bútor fából / gyerekágy fiókkal / őszi női cipő fűzős / konyhaszekrény fehér",
    ),
    "ro": (
        "cp1250 iso8859-2",
        "pătuţ copii din lemn / scaun bucătărie negru / furtun grădină verde / lampă de masă înaltă",
    ),
    "hr": (
        "cp1250 iso8859-2",
        "dječji krevet bijeli / crijevo za vrt žuto / stolica šivana čvrsta / ormarić kupaonski sa zrcalom",
    ),
    "ru": (
        "cp1251 koi8-r iso8859-5 cp866",
        "садовый шланг зелёный / настольная лампа для чтения / детская кроватка белая / кухонный стол деревянный",
    ),
    "uk": (
        "cp1251 koi8-u",
        "садовий шланг зелений / настільна лампа їдальня / дитяче ліжко біле / кухонний стіл дерев'яний",
    ),
    "bg": (
        "cp1251 iso8859-5",
        "градински маркуч зелен / настолна лампа бяла / детско легло с чекмеджета / кухненска маса дървена",
    ),
    "el": (
        "cp1253 iso8859-7",
        "λάστιχο κήπου πράσινο / φωτιστικό γραφείου λευκό / παιδικό κρεβάτι με συρτάρια / τραπέζι κουζίνας ξύλινο",
    ),
    "tr": (
        "cp1254 iso8859-9",
        "bahçe hortumu yeşil / masa lambası beyaz ışıklı / çocuk yatağı çekmeceli / ahşap mutfak masası",
    ),
    "he": ("cp1255", "צינור גינה ירוק / מנורת שולחן לבנה / מיטת ילדים עם מגירות / שולחן מטבח מעץ"),
    "ar": ("cp1256 iso8859-6", "خرطوم حديقة أخضر / مصباح طاولة أبيض / سرير أطفال مع أدراج / طاولة مطبخ خشبية"),
    "lt": (
        "cp1257",
        "sodo žarna žalia / stalinė lempa balta šviesi / vaikiška lova su stalčiais / medinis virtuvės stalas ąžuolas",
    ),
    "lv": ("cp1257", "dārza šļūtene zaļa / galda lampa balta / bērnu gulta ar atvilktnēm / koka virtuves galds"),
    "et": (
        "cp1257 cp1252",
        "aiavoolik roheline pikk / lauavalgusti valge õhuke / lastevoodi sahtlitega täispuit / köögilaud puidust",
    ),
    "vi": (
        "cp1258",
        "ống nước sân vườn màu xanh / đèn bàn học màu trắng / giường trẻ em có ngăn kéo / bàn ăn gỗ nhà bếp",
    ),
    "th": ("cp874", "สายยางรดน้ำสวน / โคมไฟตั้งโต๊ะสีขาว / เตียงเด็กพร้อมลิ้นชัก / โต๊ะครัวไม้"),
    "ja": ("shift_jis euc_jp", "庭のホース 緑 / 卓上ランプ 白い / 引き出し付き子供用ベッド / 木製キッチンテーブル"),
    "zh": ("gb18030", "花园软管 绿色 / 台灯 白色 护眼 / 儿童床带抽屉 / 实木厨房餐桌"),
    "zh-Hant": ("big5", "花園軟管 綠色 / 檯燈 白色 護眼 / 兒童床附抽屜 / 實木廚房餐桌"),
    "ko": ("euc_kr", "정원 호스 초록색 / 흰색 책상 스탠드 조명 / 서랍 달린 어린이 침대 / 원목 주방 식탁"),
}


def encoded(text: str, encoding: str) -> bytes:
    """Return the bytes of a text; cp1258 has Vietnamese tones as characters of their own."""
    if encoding != "cp1258":
        return text.encode(encoding)
    characters = []
    for character in text:
        base, *marks = list(unicodedata.normalize("NFD", character))
        letter = unicodedata.normalize("NFC", base + "".join(mark for mark in marks if mark in "\u0302\u031b\u0306"))
        characters.append(letter + "".join(mark for mark in marks if mark not in "\u0302\u031b\u0306"))
    return "".join(characters).encode(encoding)


@pytest.mark.parametrize(("language", "encoding"), [(language, name) for language, (names, _) in TEXTS.items() for name in names.split()])
def test_few_texts_tell_the_encoding(tmp_path: Path, language: str, encoding: str) -> None:
    texts = TEXTS[language][1].split(" / ")
    path = tmp_path / "rows.csv"
    path.write_bytes(encoded("id,query\n" + "".join(f"{index},{text}\n" for index, text in enumerate(texts)), encoding))
    name, reason = find_encoding(path)
    assert path.read_bytes().decode(name) == path.read_bytes().decode(encoding)
    assert "chardet" in reason


@pytest.mark.parametrize("text", ["shelf 93½ in.", "it’s a lamp", "“smart” lamp – 5 €", "£30 kettle", "Ångström™ lamp", "40° ± 2°"])
def test_signs_in_english_texts_are_western(text: str) -> None:
    name = detect_encoding(text.encode("cp1252"))
    assert name in ("cp1252", "latin-1")
    assert text.encode("cp1252").decode(name) == text


def test_damaged_utf8_is_utf8(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("".join(f"{index},lámpara\n" for index in range(50)).encode() + b"51,l\xe1mpara\n")
    assert find_encoding(path) == ("utf-8", "1 of 51 lines with other characters than ASCII are damaged")
