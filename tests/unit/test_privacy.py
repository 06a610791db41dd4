"""Detection of personal data: addresses, telephone numbers and card numbers in all formats, but not ordinary queries."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from babelcart.rows.text import normalise
from babelcart.translation.privacy import personal_data

WORDS = st.sampled_from(["", "call", "tel:", "my card", "cargador iphone", "충전기", "充電器", "เบอร์", "шина", "هاتف"])
SEPARATORS = ["", " ", "-", " - ", ".", "/", "_", "\u00a0", "\u2009", "–", "‑", "·", "\u200b", "\u00ad", ") ", ","]
ZEROS = [ord(zero) for zero in "0０٠۰०๐𝟎"]


def in_script(text: str, zero: int) -> str:
    return "".join(chr(zero + int(character)) if character.isascii() and character.isdigit() else character for character in text)


def luhn(digits: str) -> bool:
    """Return whether the digits have a valid checksum of card numbers."""
    products = [int(digit) * (1 + position % 2) for position, digit in enumerate(reversed(digits))]
    return sum(product - 9 if product > 9 else product for product in products) % 10 == 0


@st.composite
def cards(draw: st.DrawFn) -> str:
    digits = draw(st.text("0123456789", min_size=12, max_size=18))
    digits += next(check_digit for check_digit in "0123456789" if luhn(digits + check_digit))
    group_size = draw(st.sampled_from([3, 4, 6, 19]))
    return draw(st.sampled_from(SEPARATORS)).join(digits[start : start + group_size] for start in range(0, len(digits), group_size))


@given(cards(), st.sampled_from(ZEROS), WORDS, st.sampled_from(["", " "]), WORDS)
@example("4111 1111 1111 1111", ord("0"), "", "", "")
@example("4111-1111-1111-1111", ord("０"), "visa", "", "exp")
def test_card_numbers_are_personal_data(card: str, zero: int, before: str, space: str, after: str) -> None:
    # No word in WORDS ends with a digit, which would become part of the number.
    assert personal_data(f"{before}{space}{in_script(card, zero)}{space}{after}")


def example_numbers() -> list[str]:
    """Fixed and mobile telephone numbers of all regions, in all formats of libphonenumber and as digits."""
    phonenumbers = pytest.importorskip("phonenumbers", reason="needs phonenumbers: pip install -e '.[dev]'")
    from phonenumbers import PhoneNumberFormat as Format
    from phonenumbers import PhoneNumberType as Type

    numbers: list[str] = []
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        for kind in (Type.FIXED_LINE, Type.MOBILE):
            if number := phonenumbers.example_number_for_type(region, kind):
                formats = (Format.E164, Format.INTERNATIONAL, Format.NATIONAL, Format.RFC3966)
                numbers += [phonenumbers.format_number(number, number_format) for number_format in formats]
                numbers.append(str(number.national_number))
    return [number for number in numbers if sum(character.isdigit() for character in number) >= 7]


@pytest.mark.parametrize("zero", ZEROS)
def test_telephone_numbers_of_all_regions_are_personal_data(zero: int) -> None:
    numbers = [in_script(number, zero) for number in example_numbers()]
    assert len(numbers) > 2000
    assert [number for number in numbers if not personal_data(number)] == []
    assert [number for number in numbers if not personal_data(f"iphone 14 case {number} whatsapp")] == []
    assert [number for number in numbers if not personal_data(f"whatsapp:{number},ask")] == []


@given(
    st.emails(domains=st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z]{2,6}){1,2}", fullmatch=True)),
    WORDS,
    st.sampled_from(["@", "＠", "﹫", " @ ", "%40", "&#64;", " (at) ", " [at] "]),
)
def test_e_mail_addresses_are_personal_data(address: str, word: str, sign: str) -> None:
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
def test_postal_addresses_are_personal_data(address: str) -> None:
    assert personal_data(address) == "postal address"
    assert personal_data(f"pizza to {address.upper()} please")


@pytest.mark.parametrize(
    "text", ["jo at example dot org", "jo at gmail.com", "jo (at) example.org", '"jo smith"@example.org', "jo@[192.0.2.1]", "x@münchen.de"]
)
def test_disguised_e_mail_addresses_are_personal_data(text: str) -> None:
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
def test_ordinary_queries_are_not_personal_data(text: str) -> None:
    assert personal_data(text) is None


@given(st.text(max_size=200))
def test_the_normal_form_of_a_text_gives_the_same_answer(text: str) -> None:
    assert (personal_data(text) is None) == (personal_data(normalise(text)) is None)


def test_long_hostile_texts_are_processed_quickly() -> None:
    """A regular expression with catastrophic backtracking would not return on these texts."""
    for piece in ("1 ", "1 a ", "rue a ", "12 ab ", "市", "1-", "at ", "ถนน ", "로1", "(at "):
        personal_data(piece * 20000)
    random.seed(0)
    personal_data("".join(random.choices("1a @-rue市", k=100_000)))
