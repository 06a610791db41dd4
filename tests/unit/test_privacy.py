"""Nothing personal is sent to a translator: what is written in the manner of an address, a telephone number or a card stays at home."""

from __future__ import annotations

import random

import phonenumbers
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat as Format
from phonenumbers import PhoneNumberType as Type

from babelcart.rows.text import normalise
from babelcart.translation.privacy import personal_data

WORDS = st.sampled_from(["", "call", "tel:", "my card", "cargador iphone", "충전기", "充電器", "เบอร์", "шина", "هاتف"])
SEPARATORS = ["", " ", "-", " - ", ".", "/", "_", "\u00a0", "\u2009", "–", "‑", "·", "\u200b", "\u00ad", ") ", ","]
ZEROS = [ord(zero) for zero in "0０٠۰०๐𝟎"]


def in_script(text: str, zero: int) -> str:
    return "".join(chr(zero + int(character)) if character.isascii() and character.isdigit() else character for character in text)


def luhn(digits: str) -> bool:
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


@st.composite
def cards(draw: st.DrawFn) -> str:
    digits = draw(st.text("0123456789", min_size=12, max_size=18))
    digits += next(check for check in "0123456789" if luhn(digits + check))
    group = draw(st.sampled_from([3, 4, 6, 19]))
    return draw(st.sampled_from(SEPARATORS)).join(digits[start : start + group] for start in range(0, len(digits), group))


@given(cards(), st.sampled_from(ZEROS), WORDS, st.sampled_from(["", " "]), WORDS)
@example("4111 1111 1111 1111", ord("0"), "", "", "")
@example("4111-1111-1111-1111", ord("０"), "visa", "", "exp")
def test_a_card_stays_at_home(card: str, zero: int, before: str, space: str, after: str) -> None:
    # Before a card's digits, those of the text are part of the run: no word here ends in one.
    assert personal_data(f"{before}{space}{in_script(card, zero)}{space}{after}")


def examples() -> list[str]:
    """A number of every region and kind, in every format that people there use, and as its digits alone."""
    found = []
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        for kind in (Type.FIXED_LINE, Type.MOBILE):
            if number := phonenumbers.example_number_for_type(region, kind):
                found += [
                    phonenumbers.format_number(number, way) for way in (Format.E164, Format.INTERNATIONAL, Format.NATIONAL, Format.RFC3966)
                ]
                found.append(str(number.national_number))
    return [one for one in found if sum(character.isdigit() for character in one) >= 7]


@pytest.mark.parametrize("zero", ZEROS)
def test_a_telephone_number_of_any_region_stays_at_home(zero: int) -> None:
    numbers = [in_script(one, zero) for one in examples()]
    assert len(numbers) > 2000
    assert [one for one in numbers if not personal_data(one)] == []
    assert [one for one in numbers if not personal_data(f"iphone 14 case {one} whatsapp")] == []
    assert [one for one in numbers if not personal_data(f"whatsapp:{one},ask")] == []


@given(
    st.emails(domains=st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z]{2,6}){1,2}", fullmatch=True)),
    WORDS,
    st.sampled_from(["@", "＠", "﹫", " @ ", "%40", "&#64;", " (at) ", " [at] "]),
)
def test_an_e_mail_address_stays_at_home(address: str, word: str, sign: str) -> None:
    local, _, domain = address.rpartition("@")
    assume(sign not in (" (at) ", " [at] ") or local[-1].isalnum())
    assert personal_data(f"{word} {local}{sign}{domain} {word}") == "e-mail"


@pytest.mark.parametrize(
    "address",
    [
        "221b Baker Street, London", "1600 Pennsylvania Ave NW", "742 evergreen terrace", "4 privet drive", "12 high rd", "PO Box 1234",
        "Hauptstraße 5", "Hauptstr. 12a 10115 Berlin", "Am Alten Markt Platz 3", "Postfach 1234",
        "10 rue de Rivoli 75001 Paris", "12 bis avenue Victor Hugo", "rue de la paix 3",
        "Calle Mayor 12, Madrid", "Av. Corrientes 1234", "avenida de la constitución nº 5",
        "Via Roma 3", "piazza del duomo, 1", "Rua Augusta 1500", "Av. Paulista, 1578",
        "ul. Marszałkowska 10", "al. Jerozolimskie 54", "jl. sudirman no. 5", "jalan raya kuta 88",
        "123 đường Nguyễn Huệ", "phố hàng bài số 7",
        "شارع الملك فهد 25", "٢٥ شارع التحرير", "99 ถนนสุขุมวิท", "ซอยทองหล่อ 13", "東京都千代田区丸の内1丁目9番1号", "〒1",
        "大阪市北区梅田3-1-3",
        "서울 강남구 테헤란로 152", "종로 1", "역삼동 737번지",
    ],
)  # fmt: skip
def test_a_postal_address_stays_at_home(address: str) -> None:
    assert personal_data(address) == "postal address"
    assert personal_data(f"pizza to {address.upper()} please")


@pytest.mark.parametrize(
    "text", ["jo at example dot org", "jo at gmail.com", "jo (at) example.org", '"jo smith"@example.org', "jo@[192.0.2.1]", "x@münchen.de"]
)
def test_an_address_in_disguise_stays_at_home(text: str) -> None:
    assert personal_data(text) == "e-mail"


@pytest.mark.parametrize(
    "text",
    [
        "iphone 14 pro max 256gb", "12.5 ml", "lego 75192", "rtx 4090 24gb", "2023 2024 bmw x5", "m8x1.25", "10000mah", "5x7 1/2",
        "205/55 r16", "205/55/16", "195 65 15", "sm-a515f", "ean kcm1234567", "100x200 cm", "64 gb usb drive",
        "2 pack off road tires", "가로 30 세로 50",
        "1920x1080 monitor", "triumph street triple 765", "power bank 20000 mah 65w",
    ],
)  # fmt: skip
def test_an_ordinary_query_is_sent(text: str) -> None:
    assert personal_data(text) is None


@given(st.text(max_size=200))
def test_any_text_gets_an_answer_that_does_not_hang_on_its_form(text: str) -> None:
    assert (personal_data(text) is None) == (personal_data(normalise(text)) is None)


def test_a_long_text_takes_no_long_time() -> None:
    """Regular expressions that run away on a hostile text would not come back here."""
    for piece in ("1 ", "1 a ", "rue a ", "12 ab ", "市", "1-", "at ", "ถนน ", "로1", "(at "):
        personal_data(piece * 20000)
    random.seed(0)
    personal_data("".join(random.choices("1a @-rue市", k=100_000)))
