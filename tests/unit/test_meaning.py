"""The check of meaning: translations of engines that belong to another text are refused, and nothing else is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from babelcart.core import config
from babelcart.core.errors import UserError
from babelcart.translation.meaning import MeaningCheck
from babelcart.translation.memory_files import GIVEN, Entry
from babelcart.translation.settings import TranslateSettings
from babelcart.translation.translation_memory import Memory
from babelcart.translation.translator import Answer, Refusal, Source, Translator
from tests.support.project import Project

CORRECT = {"garden hose": "gartenschlauch", "phone case": "handyhülle", "yoga mat": "yogamatte"}


class Concepts:
    """An encoder that maps a text and its correct translation to the same vector."""

    name = "concepts"

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.encoded += texts
        concepts = [[text, translation] for text, translation in CORRECT.items()]
        return np.array([[float(text in concept) for concept in concepts] for text in texts], dtype=np.float32)


class MixedUp:
    """An engine on this machine that returns the translation of another text for two of three texts."""

    name, version, network, batch_size, max_characters = "mixed", "1", False, 8, 100

    def supports(self, source: str, target: str) -> bool:
        return True

    def client(self, source: str, target: str):  # type: ignore[no-untyped-def]
        answers = {"garden hose": "handyhülle", "phone case": "gartenschlauch", "yoga mat": "yogamatte"}
        return lambda texts: [answers[text] for text in texts]


def translator(memory: Memory, meaning: MeaningCheck, *sources: Source) -> Translator:
    return Translator(memory, sources, TranslateSettings(memory=""), meaning=meaning)


def test_translations_of_other_texts_are_refused_and_given_ones_are_trusted(tmp_path: Path) -> None:
    encoder = Concepts()
    meaning = MeaningCheck(lambda: encoder, {"de": 0.5}, tmp_path / "vectors.sqlite")
    with Memory(tmp_path / "m.sqlite") as memory:
        answers = translator(memory, meaning, Source("mixed", "1", MixedUp())).translate(("en", "de"), CORRECT)
        assert answers == {"garden hose": Refusal("meaning"), "phone case": Refusal("meaning"), "yoga mat": Answer("yogamatte", "mixed")}
        memory.add([Entry(GIVEN, "", "en", "de", "garden hose", "handyhülle")])
        answers = translator(memory, meaning, Source(GIVEN, "")).translate(("en", "de"), ["garden hose"])
        assert answers == {"garden hose": Answer("handyhülle", GIVEN)}


def test_languages_without_a_limit_are_not_encoded(tmp_path: Path) -> None:
    encoder = Concepts()
    meaning = MeaningCheck(lambda: encoder, {"de": 0.5}, tmp_path / "vectors.sqlite")
    pairs = [("garden hose", "handyhülle")]
    assert meaning.differs("en", "vi", pairs) == meaning.differs("vi", "de", pairs) == [False]
    assert encoder.encoded == []
    assert meaning.differs("en", "de", pairs) == [True]


def test_known_vectors_are_not_computed_again(tmp_path: Path) -> None:
    pairs = list(CORRECT.items())
    for expected in (2 * len(pairs), 0):
        encoder = Concepts()
        assert MeaningCheck(lambda encoder=encoder: encoder, {"de": 0.5}, tmp_path / "v.sqlite").differs("en", "de", pairs) == [False] * 3  # type: ignore[misc]
        assert len(encoder.encoded) == expected


def test_the_settings_are_checked(project: Project) -> None:
    assert MeaningCheck.from_settings({}, Path()) is None
    with pytest.raises(UserError, match=r"negatives\.encoder is lexical"):
        MeaningCheck.from_settings({"de": 0.3}, Path())
    for limits, message in (({"klingon": 0.3}, "min_similarity: 'klingon' is not a language"), ({"de": 3}, "min_similarity.de is 3")):
        with pytest.raises(UserError, match=message):
            config.build_section(TranslateSettings, {"memory": "", "min_similarity": limits}, "translate")
    assert config.build_section(TranslateSettings, {"memory": "", "min_similarity": {"vn": 0.1}}, "translate").min_similarity == {"vi": 0.1}
