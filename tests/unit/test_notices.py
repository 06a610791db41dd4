"""Answers of servers that are no translations: they are not believed, not stored, and stop the engine."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from babelcart.core.errors import UserError
from babelcart.translation import engines, memory_files, network, notices
from babelcart.translation.memory_files import Entry
from babelcart.translation.settings import TranslateSettings
from babelcart.translation.translation_memory import EngineDirection, Memory
from babelcart.translation.translator import Answer, Source, Translator
from tests.support.libre_server import FAST, TEXTS, german
from tests.support.project import run

EN_DE = ("en", "de")
MYMEMORY = "MYMEMORY WARNING: YOU USED ALL AVAILABLE FREE TRANSLATIONS FOR TODAY. NEXT AVAILABLE IN 09 HOURS 13 MINUTES 05 SECONDS"
NOTICES = [
    MYMEMORY,
    "QUERY LENGTH LIMIT EXCEEDED. MAX ALLOWED QUERY : 500 CHARS",
    "'XX' IS AN INVALID TARGET LANGUAGE . EXAMPLE: LANGPAIR=EN|IT USING 2 LETTER ISO OR RFC3066 LIKE ZH-CN.",
    "PLEASE SELECT TWO DISTINCT LANGUAGES",
    "Bevor Sie zu Google weitergehen: https://consent.google.com/m?continue=https://translate.google.com",
    "Before you continue to Google",
    "Our systems have detected unusual traffic from your computer network.",
    "Too many requests, please try again later.",
    "Daily quota exceeded",
    "Error 500 (Server Error)!!1",
    "I'm sorry, but I cannot translate this text.",
]


OTHER_NOTICES = [
    "Sie haben Ihr Tageskontingent überschritten.", "Zu viele Anfragen. Bitte versuchen Sie es später erneut.", "Zugriff verweigert",
    "Trop de requêtes, veuillez réessayer plus tard", "Limite de requêtes atteinte", "Service temporairement indisponible",
    "Demasiadas solicitudes. Inténtelo de nuevo más tarde", "Ha superado su cuota diaria",
    "Muitas solicitações. Tente novamente mais tarde",
    "Limite diário excedido", "Troppe richieste, riprova più tardi", "Te veel verzoeken, probeer het later opnieuw",
    "Przekroczono limit zapytań", "Příliš mnoho požadavků", "För många förfrågningar", "Çok fazla istek. Lütfen daha sonra tekrar deneyin",
    "Слишком много запросов. Попробуйте позже", "Превышен лимит запросов", "Сервис временно недоступен", "请求过于频繁,请稍后再试",
    "您的请求次数已达上限", "余额不足", "リクエストが多すぎます。しばらくしてからもう一度お試しください", "1日の上限に達しました",
    "요청이 너무 많습니다. 잠시 후 다시 시도하세요", "일일 한도를 초과했습니다", "طلبات كثيرة جدا. حاول مرة أخرى لاحقا",
    "Quá nhiều yêu cầu, vui lòng thử lại sau", "Terlalu banyak permintaan. Coba lagi nanti", "คำขอมากเกินไป โปรดลองอีกครั้งในภายหลัง",
    "Gartenschlauch / Zu viele Anfragen", "Error: 503", "We are currently performing maintenance",
    "Your IP 10.2.3.4 has been blocked",
    "Please log in", "Something went wrong", "No translation available", "[object Object]", "undefined", "Not Found",
]  # fmt: skip
# Texts of shops with words of notices.
ORDINARY = [
    "limit switch", "error code reader", "quota board game", "captcha t-shirt", "please try again puzzle", "Grenzschalter für Limit",
    "bad request mug",
    "interruptor de límite", "jeu de société quota", "Access control keypad", "service bell", "null modem cable", "timeout timer for kids",
    "maintenance free battery", "API 600 valve", "sign in sheet", "limite de velocidad placa", "请勿触摸标志", "アクセスコントロール",
]  # fmt: skip


@contextmanager
def serving(answer: Callable[[str], object]) -> Iterator[tuple[str, list[str]]]:
    """A translation server on loopback; yields its address and the texts that it receives."""
    received: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            text = parse_qs(urlsplit(self.path).query)["q"][0]
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            received.append(text)
            body = answer(text)
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if isinstance(body, str) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", received
    finally:
        server.shutdown()
        server.server_close()


def translator(memory: Memory, url: str, kind: str = "libre") -> Translator:
    limits = network.RateLimits(**{**FAST, "max_failures": 5, "retries": 0, "concurrency": 1})
    block = engines.EngineSettings(kind=kind, base_url=url)  # type: ignore[arg-type]
    settings = TranslateSettings(memory="", chain=(kind,), engines={kind: block}, allow_network=True, network=limits)
    engine = engines.build(kind, block, Path(), limits.timeout)
    return Translator(memory, [Source(kind, engine.version, engine)], settings)


@pytest.mark.parametrize("text", [*NOTICES, *OTHER_NOTICES])
def test_known_notices_are_recognised(text: str) -> None:
    assert notices.notice("garden hose", text) or notices.is_too_long("garden hose", text)
    assert notices.notice(text, text) is None  # a query for the notice itself


@pytest.mark.parametrize("text", TEXTS[:40])
def test_translations_are_no_notices(text: str) -> None:
    assert notices.notice(text, german(text)) is None


@pytest.mark.parametrize("text", ORDINARY)
def test_texts_of_shops_with_words_of_notices_are_no_notices(text: str) -> None:
    assert notices.notice("garden hose", text) is None


PAGE = "<!DOCTYPE html><html><body><form action='https://consent.google.com'>Alle akzeptieren</form></body></html>"
UNUSABLE: list[tuple[str, Callable[[str], object]]] = [
    *((text, lambda _, text=text: {"translatedText": text}) for text in (MYMEMORY, NOTICES[5], NOTICES[8])),
    ("an error beside a translation", lambda text: {"translatedText": german(text), "error": "Slowdown: too many requests"}),
    ("a status as text", lambda text: {"translatedText": german(text), "responseStatus": "403"}),
    ("a page instead of a translation", lambda _: {"translatedText": PAGE}),
    ("JSON instead of a translation", lambda text: {"translatedText": json.dumps({"translatedText": german(text)})}),
    ("an empty answer", lambda _: {"translatedText": " "}),
    ("a consent page", lambda _: "<html><body><form action='https://consent.google.com'>Alle akzeptieren</form></body></html>"),
    ("an unknown notice, the same for every text", lambda _: {"translatedText": "Dienst in Wartung"}),
    ("an unknown notice with a counter", lambda text: {"translatedText": f"Dienst in Wartung ({len(text) * 7})"}),
]


@pytest.mark.parametrize(("name", "answer"), UNUSABLE, ids=[name[:40] for name, _ in UNUSABLE])
def test_a_notice_is_not_stored_stops_the_engine_and_is_asked_again(tmp_path: Path, name: str, answer: Callable[[str], object]) -> None:
    with serving(answer) as (url, received), Memory(tmp_path / "m.sqlite") as memory:
        first = translator(memory, url)
        answers = first.translate(EN_DE, TEXTS[:30])
        assert not any(isinstance(result, Answer) for result in answers.values())
        assert list(memory.entries()) == []
        assert "libre" in first.unavailable
        # max_failures is 5. An unknown notice is recognised by five clearly different texts, and these texts share words.
        assert len(received) <= (16 if "unknown" in name else 6)
    with serving(lambda text: {"translatedText": german(text)}) as (url, received), Memory(tmp_path / "m.sqlite") as memory:
        answers = translator(memory, url).translate(EN_DE, TEXTS[:30])
        assert all(isinstance(result, Answer) and result.translation == german(text) for text, result in answers.items())
        assert sorted(received) == sorted(TEXTS[:30])


# deep-translator's own classes, with a server on loopback in the place of the public one: answers that are no translations.
PUBLIC: list[tuple[str, str, Callable[[str], object]]] = [
    ("mymemory", "a quota", lambda _: {"responseData": {"translatedText": MYMEMORY}, "quotaFinished": None, "responseStatus": 200}),
    ("mymemory", "a flag", lambda text: {"responseData": {"translatedText": german(text)}, "quotaFinished": True, "responseStatus": 200}),
    ("mymemory", "a status", lambda text: {"responseData": {"translatedText": german(text)}, "responseStatus": "429", "matches": []}),
    ("mymemory", "no text", lambda _: {"responseData": {"translatedText": None}, "responseStatus": 200, "matches": []}),
    ("mymemory", "a page", lambda _: PAGE),
    ("google", "a consent page", lambda _: PAGE),
    ("google", "a captcha", lambda _: '<div class="result-container">Our systems have detected unusual traffic.</div>'),
    ("google", "a counter", lambda text: f'<div class="result-container">Bitte warten ({len(text)})</div>'),
    ("google", "the text itself", lambda text: f'<div class="result-container">{text}</div>'),
]


def public(kind: str, url: str, memory: Memory, monkeypatch: pytest.MonkeyPatch) -> Translator:
    import deep_translator.constants

    for name in ("MYMEMORY", "GOOGLE_TRANSLATE"):
        monkeypatch.setitem(deep_translator.constants.BASE_URLS, name, url)
    return translator(memory, url, kind)


@pytest.mark.parametrize(("kind", "name", "answer"), PUBLIC, ids=[f"{kind}: {name}" for kind, name, _ in PUBLIC])
def test_public_servers_that_refuse_are_stopped_and_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str, answer: Callable[[str], object]
) -> None:
    with serving(answer) as (url, received), Memory(tmp_path / "m.sqlite") as memory:
        first = public(kind, url, memory, monkeypatch)
        answers = first.translate(EN_DE, TEXTS[:30])
        assert not any(isinstance(result, Answer) for result in answers.values())
        assert list(memory.entries()) == []
        if name != "the text itself":  # it may be right for names, and does not stop the engine
            assert kind in first.unavailable
            assert len(received) <= (16 if name == "a counter" else 6)

    def correct(text: str) -> object:
        if kind == "google":
            return f'<div class="result-container">{german(text)}</div>'
        return {"responseData": {"translatedText": german(text)}, "quotaFinished": False, "responseStatus": 200}

    with serving(correct) as (url, received), Memory(tmp_path / "m.sqlite") as memory:
        answers = public(kind, url, memory, monkeypatch).translate(EN_DE, TEXTS[:30])
        assert {text: result.translation for text, result in answers.items() if isinstance(result, Answer)} == {
            text: german(text) for text in TEXTS[:30]
        }
        assert sorted(received) == sorted(TEXTS[:30])


def test_failures_of_several_directions_add_up(tmp_path: Path) -> None:
    with serving(lambda _: PAGE) as (url, received), Memory(tmp_path / "m.sqlite") as memory:
        user = translator(memory, url)  # max_failures is 5
        for target in ("de", "fr", "it", "pl"):
            user.translate(("en", target), TEXTS[:2])
        assert len(received) == 5
        assert "libre" in user.unavailable


def test_parts_of_a_notice_may_vary() -> None:
    same = notices.SameAnswers()
    texts = ["garden hose", "dog bed", "led lamp"]
    answers = [f"Vorgang {identifier} nicht ausgeführt, warten Sie {n} s" for n, identifier in enumerate(("a3f-09", "77b2e", "x91c4d"))]
    assert [same.add(text, answer) for text, answer in zip(texts, answers, strict=True)] == [1, 2, 3]


def test_translations_without_spaces_are_not_the_same_because_of_their_digits() -> None:
    same = notices.SameAnswers()
    pairs = [("garden hose 15m", "庭のホース15m"), ("dog bed 2", "犬用ベッド2"), ("usb lamp 3", "USBランプ3")]
    assert [same.add(text, answer) for text, answer in pairs] == [1, 1, 1]


def test_one_notice_does_not_stop_the_engine(tmp_path: Path) -> None:
    notice_texts = set(TEXTS[3:7])
    with (
        serving(lambda text: {"translatedText": MYMEMORY if text in notice_texts else german(text)}) as (url, received),
        Memory(tmp_path / "m.sqlite") as memory,
    ):
        answers = translator(memory, url).translate(EN_DE, TEXTS[:30])
        assert {text for text, result in answers.items() if not isinstance(result, Answer)} == notice_texts
        assert {entry.text for entry in memory.entries()} == set(TEXTS[:30]) - notice_texts
        assert len(received) == 30


def test_a_local_engine_that_loses_a_translation_stops_the_run(tmp_path: Path) -> None:
    class Short:
        name, version, network, batch_size, max_characters = "short", "1", False, 8, 100

        def supports(self, source: str, target: str) -> bool:
            return True

        def client(self, source: str, target: str) -> Callable[[list[str]], list[str]]:
            return lambda texts: [german(text) for text in texts[1:]]

    with Memory(tmp_path / "m.sqlite") as memory:
        user = Translator(memory, [Source("short", "1", Short())], TranslateSettings(memory=""))  # type: ignore[arg-type]
        with pytest.raises(UserError, match="short returned 7 translations of 8 texts"):
            user.translate(EN_DE, TEXTS[:20])
        assert list(memory.entries()) == []


def test_stored_notices_are_removed(tmp_path: Path) -> None:
    with serving(lambda text: {"translatedText": german(text)}) as (url, _), Memory(tmp_path / "m.sqlite") as memory:
        user = translator(memory, url)
        source = user.sources[0]
        memory.add(
            [
                Entry(source.name, source.version, *EN_DE, TEXTS[0], MYMEMORY),
                Entry(source.name, source.version, *EN_DE, TEXTS[1], "richtig"),
            ]
        )
        user.translate(EN_DE, TEXTS[:3])
        known = memory.look_up(EngineDirection(source.name, source.version, *EN_DE), TEXTS[:3])
        assert known == {TEXTS[0]: german(TEXTS[0]), TEXTS[1]: "richtig", TEXTS[2]: german(TEXTS[2])}


def test_entries_are_deleted_by_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("memory").mkdir()
    entries = [
        Entry("google", "1", "en", "de", "a", MYMEMORY),
        Entry("libre", "1", "en", "de", "b", "Service notice"),
        Entry("libre", "1", "en", "de", "c", "gut"),
    ]
    memory_files.write_csv(Path("memory/qc.csv"), entries)
    run("memory", "import", "memory/qc.csv")
    result = run("memory", "delete", "--pattern", "warning|NOTICE", "--dry-run")
    assert "2 entries would be deleted" in result.output
    assert list(memory_files.read_csv(Path("memory/qc.csv"))) == entries
    result = run("memory", "delete", "libre", "--pattern", "notice")
    assert result.output.startswith("1 entries deleted")
    run("memory", "delete", "--pattern", "warning")
    memory_files.write_csv(Path("own.csv"), [Entry("given", "", "en", "de", "d", "hinweis")])
    run("memory", "import", "own.csv")
    result = run("memory", "delete", "--pattern", "hinweis")
    assert "1 of them come from files of your own" in result.output
    run("memory", "export", "left.csv")
    assert list(memory_files.read_csv(Path("left.csv"))) == entries[2:] == list(memory_files.read_csv(Path("memory/qc.csv")))
    result = run("memory", "delete", "--pattern", "warning", fails=True)
    assert "no entry of the memory matches" in result.output
    result = run("memory", "delete", "--pattern", "(", fails=True)
    assert "not a regular expression" in result.output


# ---- files of translations


def tmx(path: Path, units: str, source: str = "en", attributes: str = "") -> list[tuple[str, str, str, str]]:
    """Source, target, text and translation of the entries of a TMX file."""
    header = f'<header creationtool="x" segtype="phrase" srclang="{source}" datatype="plaintext"/>'
    path.write_text(f'<?xml version="1.0"?><tmx version="1.4"{attributes}>{header}<body>{units}</body></tmx>', encoding="utf-8")
    return [entry[2:] for entry in memory_files.read_file(path)]


def unit(*variants: tuple[str, str], attributes: str = "") -> str:
    texts = "".join(f'<tuv xml:lang="{tag}"><seg>{text}</seg></tuv>' for tag, text in variants)
    return f"<tu{attributes}>{texts}</tu>"


GARDEN_HOSE = ("en", "de", "garden hose", "Gartenschlauch")


@pytest.mark.parametrize(
    ("source", "variants"),
    [
        ("en-US", [("DE-DE", "Gartenschlauch"), ("EN-US", "garden hose")]),
        ("en_us", [("de", "Gartenschlauch"), ("en-us", "garden hose")]),
        ("en-US", [("de-DE", "Gartenschlauch"), ("en", "garden hose")]),
        ("en", [("de-DE", "Gartenschlauch"), ("en-GB", "garden hose")]),
        ("en-US", [("en", "hosepipe"), ("de", "Gartenschlauch"), ("en-US", "garden hose")]),
        ("EN", [("x-none", "0815"), ("de", "Gartenschlauch"), ("en", "garden hose")]),
    ],
)
def test_tags_of_tmx_are_no_bytes(tmp_path: Path, source: str, variants: list[tuple[str, str]]) -> None:
    assert tmx(tmp_path / "m.tmx", unit(*variants), source) == [GARDEN_HOSE]


def test_the_variant_without_a_region_wins_then_the_first(tmp_path: Path) -> None:
    portuguese = [("pt-PT", "telemóvel"), ("pt-BR", "celular")]
    assert tmx(tmp_path / "m.tmx", unit(("en", "cell phone"), *portuguese)) == [("en", "pt", "cell phone", "telemóvel")]
    assert tmx(tmp_path / "m.tmx", unit(("en", "cell phone"), *portuguese, ("pt", "móvel"))) == [("en", "pt", "cell phone", "móvel")]


def test_a_unit_without_a_source_language_gives_all_directions(tmp_path: Path) -> None:
    expected = [("de", "en", "gartenschlauch", "garden hose"), GARDEN_HOSE]
    assert sorted(tmx(tmp_path / "m.TMX", unit(("de", "Gartenschlauch"), ("en", "garden hose")), "*all*")) == expected


def test_inline_codes_are_removed(tmp_path: Path) -> None:
    text = '<bpt i="1">&lt;b&gt;</bpt>garden<ept i="1">&lt;/b&gt;</ept><ph>&lt;br/&gt;</ph><hi>ho</hi>se<ut>x<sub>y</sub></ut>'
    assert tmx(tmp_path / "m.tmx", unit(("en", text), ("de", "Gartenschlauch"))) == [GARDEN_HOSE]


def test_elements_of_other_formats_keep_their_text(tmp_path: Path) -> None:
    assert tmx(tmp_path / "m.tmx", unit(("en", "garden <b>hose</b>"), ("de", '<g id="1">Garten</g>schlauch'))) == [GARDEN_HOSE]


def test_a_namespace_does_not_hide_the_units(tmp_path: Path) -> None:
    content = tmx(
        tmp_path / "m.tmx", unit(("en", "garden hose"), ("de", "Gartenschlauch")), attributes=' xmlns="http://www.lisa.org/tmx14"'
    )
    assert content == [GARDEN_HOSE]


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (unit(("fr", "tuyau"), ("de", "Schlauch")), "unit 1: the source language is en, but the unit has only fr, de"),
        (unit(("en", "hose"), ("klingon", "x")), "unit 1: unknown language 'klingon'"),
        (unit(("en", "hose"), ("", "x")), "unit 1: a tuv has no xml:lang"),
        ('<tu><tuv xml:lang="en"/></tu>', "unit 1: a tuv has no seg"),
    ],
)
def test_a_unit_that_cannot_be_read_is_named(tmp_path: Path, units: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tmx(tmp_path / "m.tmx", units)
    (tmp_path / "x.tmx").write_text("<xliff><file/></xliff>")
    with pytest.raises(UserError, match="its root element is xliff"):
        list(memory_files.read_file(tmp_path / "x.tmx"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_memories_saved_by_spreadsheets_are_read(tmp_path: Path, encoding: str, delimiter: str) -> None:
    lines = ["Source,target,TEXT,translation".replace(",", delimiter), "en,de,garden hose,Gartenschlauch".replace(",", delimiter), ""]
    (tmp_path / "m.csv").write_bytes("\r\n".join(lines).encode(encoding))
    assert [entry[2:] for entry in memory_files.read_file(tmp_path / "m.csv")] == [GARDEN_HOSE]


HEADER = b"source,target,text,translation\n"


def test_the_line_that_declares_the_delimiter_and_empty_lines_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"sep=;\r\nsource;target;text;translation\r\n\r\nen;de;garden hose;Gartenschlauch\r\n\r\n")
    assert [entry[2:] for entry in memory_files.read_file(tmp_path / "m.csv")] == [GARDEN_HOSE]
    (tmp_path / "m.csv").write_bytes(b"sep=;\nsource;target;text;translation\n\nen;klingon;a;b\n")
    with pytest.raises(UserError, match="line 4: unknown language"):
        list(memory_files.read_file(tmp_path / "m.csv"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + b'en,de,a,"b\nen,de,c,d"\n', "line 2: a field contains other lines of the file"),
        (HEADER + b'en,de,a,b\nen,de,"c"x,d\n', "line 3: is not CSV"),
        (HEADER + b"en,de,a,b\nen,de,c,Schl\xe4uche\n", "line 3: is not UTF-8 text"),
        (HEADER.decode().encode("utf-16-le"), "no byte order mark, as UTF-16"),
        (HEADER + b"en-US,en-GB,trousers,pants\n", "line 2: .* are the same language, en"),
        (HEADER + b"en,x-none,a,b\n", "line 2: unknown language"),
        (HEADER + b"en,de,a\n", "line 2: expected 4 fields; found 3"),
        (b"text,translation\na,b\n", "line 1: expected the columns"),
    ],
)
def test_a_memory_that_cannot_be_read_rightly_is_refused_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(UserError, match=f"m.csv.*{message}"):
        list(memory_files.read_file(tmp_path / "m.csv"))
