"""The two forms in which texts are compared, and every place in the code that compares texts."""

from __future__ import annotations

import re
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from babelcart import baseline, experiments, leaks, publish, split
from babelcart.domain import TrainingDomain
from babelcart.embedding.encoders import EncoderSettings
from babelcart.embedding.similarity import embed_rows
from babelcart.inspection.changes import compare_rows
from babelcart.negatives import sampling
from babelcart.reading.parsing import RowParser
from babelcart.reading.sources import RawFile, ReadOptions
from babelcart.rows import languages, taxonomy, text
from babelcart.rows.cleaning import drop_uninformative
from babelcart.rows.table import PREPARED_COLUMNS
from babelcart.scores import intervals, slices
from babelcart.serving.describe import known_translations
from babelcart.translation import gate, memory_files, notices, privacy
from babelcart.translation.augment import add_pivot, shared_words, translate_rows
from babelcart.translation.memory_files import Entry
from babelcart.translation.settings import Expansion, TranslateSettings
from babelcart.translation.translation_memory import EngineDirection, Memory
from babelcart.translation.translator import Answer, Source, Translator
from tests.support.imports import ROOT

# Characters that are not read, by name. Each is put inside a word, before it and after it.
INVISIBLE = {
    "soft hyphen": "\u00ad", "combining grapheme joiner": "\u034f", "Arabic letter mark": "\u061c", "Arabic tatweel": "\u0640",
    "Hangul choseong filler": "\u115f", "Khmer inherent vowel": "\u17b4", "Mongolian variation selector": "\u180b",
    "Mongolian vowel separator": "\u180e", "zero-width space": "\u200b", "zero-width non-joiner": "\u200c",
    "zero-width joiner": "\u200d", "left-to-right mark": "\u200e", "right-to-left mark": "\u200f", "embedding": "\u202a",
    "right-to-left override": "\u202e", "word joiner": "\u2060", "invisible times": "\u2062", "isolate": "\u2066",
    "deprecated shaping": "\u206a", "text variation selector": "\ufe0e", "emoji variation selector": "\ufe0f",
    "byte order mark": "\ufeff", "interlinear anchor": "\ufff9", "object replacement": "\ufffc", "shorthand format": "\U0001bca0",
    "musical beam": "\U0001d173", "language tag": "\U000e0001", "tag letter": "\U000e0067", "ideographic variation": "\U000e0100",
    "backspace": "\x08", "escape": "\x1b", "delete": "\x7f", "C1 control": "\x92",
}  # fmt: skip
# Characters that are read as a space.
BLANK = {
    "no-break space": "\u00a0", "narrow no-break space": "\u202f", "figure space": "\u2007", "ideographic space": "\u3000",
    "line separator": "\u2028", "paragraph separator": "\u2029", "next line": "\x85", "tab": "\t", "unit separator": "\x1f",
    "Hangul filler": "\u3164", "half-width Hangul filler": "\uffa0", "Hangul vowel filler": "\u1160", "empty Braille pattern": "\u2800",
    "Ogham space": "\u1680",
}  # fmt: skip


@pytest.mark.parametrize("character", INVISIBLE.values(), ids=INVISIBLE)
def test_an_invisible_character_does_not_change_the_normal_form(character: str) -> None:
    for query in ("Wireless Mouse", "شاحن سريع", "गार्डन होज़", "무선 마우스", "無線 マウス", "chuột không dây"):
        changed = character + query[:3] + character + query[3:] + character
        assert text.normalise(changed) == text.normalise(query)
        assert text.fold(changed) == text.fold(query)


@pytest.mark.parametrize("character", BLANK.values(), ids=BLANK)
def test_a_blank_character_is_a_space(character: str) -> None:
    assert text.normalise(f"{character}Wireless{character} Mouse{character}") == "wireless mouse"
    assert text.normalise(f"chuột{character}không") == "chuột không"


def test_all_format_characters_are_invisible() -> None:
    characters = map(chr, range(0x110000))
    controls = [character for character in characters if unicodedata.category(character) in ("Cf", "Cc") and not character.isspace()]
    assert [hex(ord(character)) for character in controls if text.normalise(f"a{character}b") != "ab"] == []
    assert len(controls) > 190


def test_a_joiner_that_separates_a_letter_and_its_accent_does_not_matter() -> None:
    assert text.normalise("cafe\u034f\u0301") == text.normalise("cafe\u200b\u0301") == "café"


def test_visible_characters_stay() -> None:
    for visible in ("a-b", "a.b", "a·b", "किताब", "ｶﾞ", "c++", "#1", "👍🏽", "a_b", "�"):
        assert text.normalise(visible) == unicodedata.normalize("NFKC", visible)


@given(st.text())
def test_the_normal_form_of_a_normal_form_is_itself(value: str) -> None:
    assert text.normalise(text.normalise(value)) == text.normalise(value)


@given(st.text(st.sampled_from([*INVISIBLE.values(), *BLANK.values(), *"aAİıßſeα\u0301\u0323\u0345\u1100\u1161\u11a8ﷺﾞ ،"]), max_size=8))
def test_invisible_characters_in_any_order_keep_the_normal_form_stable(value: str) -> None:
    normal = text.normalise(value)
    assert text.normalise(normal) == normal
    assert not text.INVISIBLE.search(normal)
    assert text.fold(normal) == text.fold(value)


def test_every_character_has_a_stable_normal_form() -> None:
    contexts = ("{}", "a{}", "α{}\u0345", "{}\u200d\u0301", "e\u200b{}\u0323", "\u1100{}\u1161")
    characters = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co")]
    characters = [character for character in characters if not "\u4e00" < character < "\u9fff" and not "\uac01" < character < "\ud7a3"]
    normalise = text.normalise.__wrapped__
    unstable = []
    for character in characters:
        for context in contexts:
            normal = normalise(context.format(character))
            if normalise(normal) != normal:
                unstable.append(context.format(character))
    assert unstable == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Łódź", "lodz"), ("rødgrød", "rodgrod"), ("đèn bàn", "den ban"), ("ħabib", "habib"), ("ısıtıcı", "isitici"),
        ("İSTANBUL", "istanbul"),
        ("Straße", "strasse"), ("ægget", "aegget"), ("cœur", "coeur"), ("þorn", "thorn"), ("ðeir", "deir"), ("Škoda", "skoda"),
        ("ŧest", "test"), ("ɓata", "bata"), ("ё", "е"), ("άλφα", "αλφα"), ("don’t", "don't"), ("wi‑fi", "wi-fi"),
        ("مصباح علي", "مصباح علی"), ("کتاب", "كتاب"), ("أحذية", "احذيه"), ("كِتَاب", "كتاب"), ("iphone ١٥", "iphone 15"),
        ("١٫٥ kg", "1.5 kg"),
        ("1️⃣ case", "1 case"), ("men&#39;s shoes", "men's shoes"), ("tom &amp; jerry", "tom & jerry"),
    ],
)  # fmt: skip
def test_a_letter_and_its_base_letter_make_near_duplicates(first: str, second: str) -> None:
    assert text.fold(first) == text.fold(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("hdmi 2.1", "hdmi 1.2"),
        ("किताब", "कुतुब"),
        ("かき", "がき"),
        ("5 w 10", "5 w 1 0"),
        ("c4", "c5"),
        ("!!!", "???"),
        ("라면", "랴면"),
        ("сор", "cop"),
    ],
)
def test_different_words_are_no_near_duplicates(first: str, second: str) -> None:
    assert text.fold(first) != text.fold(second)


HIDDEN = "wire\u00adless\u200b mouse\ufe0f"  # reads as "wireless mouse"
SEEN = "Wireless mouse"


def _rows(*queries: str, label: int = 1) -> pd.DataFrame:
    records = [(str(index), "qi", "en", "en", query, f"item {query}", label, "", ()) for index, query in enumerate(queries)]
    return pd.DataFrame(records, columns=list(PREPARED_COLUMNS)).astype({"label": "Int8"})


def _split(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return split.split_rows(rows, validation_share=0.5, test_share=0.0, train_languages=(), seed=0)


def _deduplicate() -> bool:
    rows = _rows(HIDDEN, SEEN)
    kept, counts = drop_uninformative(rows.assign(candidate=["a\u200db", "ab"]), "majority")
    return len(kept) == counts["duplicate"] == 1


def _mapped_tag() -> bool:
    parser = RowParser(RawFile(Path("x.csv"), ReadOptions(languages={"Shop 1": "de"})), "qi", ("language",), labelled=False)
    return parser._languages(["\ufeffshop\u00a01\u200b"], {}) == ["de"]


def _repeated_tag() -> bool:
    try:
        ReadOptions(languages={"Shop 1": "de", "\ufeffshop\u00a01\u200b": "en"})
    except ValueError as error:
        return "two languages" in str(error)
    return False


def _language_tag() -> bool:
    return languages.iso_code("\ufeffe\u200bn-US") == languages.iso_code("EN")


def _group() -> bool:
    return split.query_group(HIDDEN) == split.query_group(SEEN)


def _near_duplicates() -> bool:
    kept = split.without_near_duplicates(_rows(HIDDEN, "lamp"), [_rows(SEEN)])
    return kept["origin_query"].tolist() == ["lamp"]


def _leak() -> bool:
    train = _rows(HIDDEN).assign(group=text.normalise(HIDDEN))
    return [leak.kind for leak in leaks.find_leaks(train, {"test": _rows(SEEN)})] == ["the same query"]


def _translation_leak() -> bool:
    train = _rows("maus").assign(group=HIDDEN)
    return [leak.kind for leak in leaks.find_leaks(train, {"test": _rows(SEEN)})] == ["a translation"]


def _known_by_translation() -> bool:
    entries = [Entry("given", "", "de", "en", "maus", HIDDEN)]
    train = _rows("maus").assign(language="de")
    return leaks.known_by_translation(train, {"test": _rows(SEEN)}, entries) == {"test": 1}


def _trained_candidate() -> bool:
    domain = TrainingDomain(frozenset(["en"]), frozenset([text.normalise(HIDDEN)]))
    return domain.notes("en", SEEN) == []


def _known_translation() -> bool:
    path = Path(tempfile.mkdtemp()) / "memory.csv"
    path.write_text(f"source,target,text,translation\nde,en,Funkmaus,{HIDDEN}\n", encoding="utf-8")
    return known_translations([path]).get(text.normalise(SEEN)) == [("de", text.normalise("Funkmaus"))]


def _quoted_row() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        card = Path(folder, "README.md")
        card.write_text(f"Queries such as {SEEN} {SEEN}.\n", encoding="utf-8")
        return len(list(publish.problems([card], [f"{HIDDEN} {HIDDEN}"]))) == 1


def _known_candidate() -> bool:
    rows = _rows("q").assign(group="q", candidate=SEEN)
    return sampling.CandidateRules(rows, "qi", sampling.SamplingSettings()).refusal("q", HIDDEN) == "known"


def _copy() -> bool:
    return sampling.word_overlap(HIDDEN, SEEN) == 1


def _related() -> bool:
    return taxonomy.related(taxonomy.levels(f"home,{HIDDEN}"), taxonomy.levels(f"Home,{SEEN},x"))


def _memory_file(path: Path = Path("memory.csv")) -> bool:
    entry = memory_files._clean(Entry("given", "", "en", "de", HIDDEN, "Maus"), str(path))
    return entry.text == text.normalise(SEEN)


def _gate() -> bool:
    return gate.check("en", "de", SEEN, HIDDEN) == "identical"


def _notice() -> bool:
    return notices.notice(HIDDEN, f"used all available {SEEN}") is not None


def _same_answers() -> bool:
    answers = notices.SameAnswers()
    for query, answer in (("garden hose", HIDDEN), ("phone case", SEEN), ("yoga mat", SEEN)):
        answers.add(query, answer)
    return answers.is_suspicious("garden hose", SEEN)


def _shared_words() -> bool:
    queries = pd.DataFrame({"language": ["en", "de", "fr"], "origin_query": [HIDDEN, "wireless", "wireless maus"]})
    return "wireless" in shared_words(queries)


def _personal_data() -> bool:
    return privacy.personal_data("jane\u2060@\u200bmail\u00ad.example") is not None


def test_a_memory_of_an_earlier_version_is_brought_into_the_present_normal_form(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    direction = EngineDirection("libre", "1", "fa", "en")
    with Memory(path) as memory:
        memory.add([Entry(*direction, "می\u200cخواهم", "want"), Entry(*direction, "میخواهم", "wish"), Entry(*direction, "لامپ", "lamp")])
        memory.add([Entry(*direction, "نیم\u200cروز", "noon")], unconfirmed=True)
        memory._connection.execute("PRAGMA user_version = 0")
    for _ in range(2):
        with Memory(path) as memory:
            assert memory.look_up(direction, ["میخواهم", "لامپ"]) == {"میخواهم": "want", "لامپ": "lamp"}
            assert memory.unconfirmed(direction) == {"نیمروز": "noon"}
            assert memory.counts() == [(*direction, 2)]


def _translator(memory: Memory) -> Translator:
    memory.add([Entry("given", "", "en", "de", text.normalise(SEEN), "Funkmaus")])
    return Translator(memory, [Source("given", "")], TranslateSettings(memory=""))


def _translated_once() -> bool:
    with Memory(Path(tempfile.mkdtemp()) / "memory.sqlite") as memory:
        answers = _translator(memory).translate(("en", "de"), [HIDDEN, SEEN])
    return answers == {text.normalise(SEEN): Answer("Funkmaus", "given")}


def _memory_store() -> bool:
    direction = EngineDirection("given", "", "en", "de")
    with Memory(Path(tempfile.mkdtemp()) / "memory.sqlite") as memory:
        memory.add([Entry(*direction, HIDDEN, "Funkmaus")])
        memory._connection.execute("PRAGMA user_version = 1")
        memory._update_keys()
        return memory.look_up(direction, [text.normalise(SEEN)]) != {}


def _pivot() -> bool:
    with Memory(Path(tempfile.mkdtemp()) / "memory.sqlite") as memory:
        rows, _ = add_pivot(_rows(HIDDEN, SEEN), "de", _translator(memory))
    return rows["pivot"].tolist() == ["Funkmaus", "Funkmaus"]


def _held_out_copy() -> bool:
    rows = _rows(SEEN).assign(group=text.normalise(SEEN))
    with Memory(Path(tempfile.mkdtemp()) / "memory.sqlite") as memory:
        copies, _ = translate_rows(rows, ["de"], Expansion(), 0, _translator(memory), {text.fold("Funk\u200bmaus")})
    return copies.empty


def _baseline() -> bool:
    queries, _ = baseline._texts(_rows(HIDDEN, SEEN))
    return queries[0] == queries[1]


def _bootstrap_of_experiments() -> bool:
    predictions = _rows(HIDDEN, SEEN).assign(model="m", cell="c", seed=0, split="test")
    return len(set(experiments.TaskPredictions(predictions, {}).query)) == 1


def _bootstrap() -> bool:
    return len(set(intervals.sampling_units(_rows(HIDDEN, SEEN)))) == 1


def _slice_of_candidates() -> bool:
    masks = slices.slice_masks(_rows(HIDDEN, SEEN), ["en"])
    return list(masks["candidates"]) == ["2-3"]


def _sampled_once() -> bool:
    rows = pd.concat([_rows(HIDDEN, SEEN), _rows("lamp", "hose", label=0)], ignore_index=True)
    rows = rows.assign(group=rows["origin_query"].map(text.normalise), origin="native")
    settings = sampling.SamplingSettings(strategy="easy", target_share=None, per_query=1, max_per_query=1, easy_ceiling=1.0)
    vectors = embed_rows(rows, EncoderSettings(kind="lexical"), Path(tempfile.mkdtemp()))
    sampled, _ = sampling.sample_negatives(rows, "qi", settings, 0, vectors)
    return len(sampled) == 3


def _revisions() -> bool:
    row = {"language": "en", "candidate": "a", "label": 1}
    changes = compare_rows(pd.DataFrame([{**row, "origin_query": HIDDEN}]), pd.DataFrame([{**row, "origin_query": SEEN}]))
    return changes["added"] == changes["removed"] == 0


# Every module that compares texts: the form that it uses, and a function that is true if HIDDEN and SEEN are the same text there.
COMPARISONS: list[tuple[str, str, Callable[[], bool]]] = [
    ("babelcart/rows/cleaning.py", "normalise", _deduplicate),
    ("babelcart/rows/languages.py", "normalise", _language_tag),
    ("babelcart/reading/parsing.py", "normalise", _mapped_tag),
    ("babelcart/reading/sources.py", "normalise", _repeated_tag),
    ("babelcart/split.py", "normalise", _group),
    ("babelcart/split.py", "fold", _near_duplicates),
    ("babelcart/rows/taxonomy.py", "normalise", _related),
    ("babelcart/leaks.py", "normalise", _leak),
    ("babelcart/leaks.py", "fold", _translation_leak),
    ("babelcart/leaks.py", "query_key", _known_by_translation),
    ("babelcart/domain.py", "normalise", _trained_candidate),
    ("babelcart/serving/describe.py", "normalise", _known_translation),
    ("babelcart/publish.py", "normalise", _quoted_row),
    ("babelcart/negatives/sampling.py", "normalise", _known_candidate),
    ("babelcart/negatives/sampling.py", "normalise", _copy),
    ("babelcart/translation/memory_files.py", "normalise", _memory_file),
    ("babelcart/translation/gate.py", "normalise", _gate),
    ("babelcart/translation/notices.py", "normalise", _notice),
    ("babelcart/translation/notices.py", "fold", _same_answers),
    ("babelcart/translation/augment.py", "normalise", _shared_words),
    ("babelcart/translation/privacy.py", "normalise", _personal_data),
    ("babelcart/translation/translator.py", "normalise", _translated_once),
    ("babelcart/translation/translation_memory.py", "normalise", _memory_store),
    ("babelcart/translation/augment.py", "query_key", _pivot),
    ("babelcart/translation/augment.py", "fold", _held_out_copy),
    ("babelcart/baseline.py", "normalise", _baseline),
    ("babelcart/experiments.py", "normalise", _bootstrap_of_experiments),
    ("babelcart/scores/intervals.py", "normalise", _bootstrap),
    ("babelcart/inspection/changes.py", "normalise", _revisions),
    ("babelcart/scores/slices.py", "sampling_units", _slice_of_candidates),
    ("babelcart/negatives/sampling.py", "normalise", _sampled_once),
]
# Operations on texts as they are written, and the reason why that is right.
AS_WRITTEN = {
    "babelcart/leaks.py": "skips repeated texts before they are compared in their forms",
    "babelcart/translation/augment.py": "skips repeated texts before they are compared in their forms; groups by language",
    "babelcart/split.py": "skips repeated texts before they are compared in their forms",
    "babelcart/reading/readers.py": "splits each path once",
    "babelcart/rows/damage.py": "checks each written text once",
    "babelcart/report/rows.py": "stores each text of the page once",
    "babelcart/embedding/similarity.py": "the encoder reads the text as it is written",
}
FORM = re.compile(r"\b(?:normalise|fold|query_key|sampling_units)\b")
TEXT_COLUMN = re.compile(
    r"(?:groupby|drop_duplicates|duplicated|factorize|isin|merge|unique|value_counts|nunique)\([^\n]*(?:origin_query|candidate)\b(?!s)"
    r"|(?:origin_query|candidate)\"\]\.(?:unique|isin|nunique|value_counts|duplicated)\("
    r"|rows\[\"language\"\] \+ [^\n]*(?:origin_query|candidate)"
)


def test_the_tables_list_every_module_that_compares_texts() -> None:
    uses, as_written = set(), set()
    for path in sorted([*(ROOT / "babelcart").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]):
        source, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
        if imported := re.search(r"from babelcart\.rows\.text import (.+)", source):
            forms = {"normalise", "fold", "query_key"} & set(re.findall(r"\w+", imported[1]))
            uses |= {(name, form) for form in forms}
        if any(TEXT_COLUMN.search(line) and not FORM.search(line) for line in source.splitlines()):
            as_written.add(name)
    assert {(path, form) for path, form, _ in COMPARISONS} == uses | {("babelcart/scores/slices.py", "sampling_units")}
    assert as_written - AS_WRITTEN.keys() == set()


@pytest.mark.parametrize(("path", "form", "same"), COMPARISONS, ids=[f"{path}, {same.__name__}" for path, _, same in COMPARISONS])
def test_texts_that_differ_in_invisible_characters_are_equal_wherever_texts_are_compared(
    path: str, form: str, same: Callable[[], bool]
) -> None:
    assert re.search(rf"\b{form}\b", (ROOT / path).read_text(encoding="utf-8"))
    assert same()
