"""Language codes: the same normalisation for rows, settings, translation memories and experiments, and refusals that name the setting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from lingua import Language

from babelcart import experiments, split
from babelcart.core.config import build_section
from babelcart.core.errors import UserError
from babelcart.reading.sources import ReadOptions
from babelcart.rows import languages
from babelcart.rows.table import PREPARED_COLUMNS
from babelcart.translation import memory_files
from babelcart.translation.augment import add_translations
from babelcart.translation.engines import EngineSettings
from babelcart.translation.memory_files import Entry
from babelcart.translation.settings import Expansion, TranslateSettings
from babelcart.translation.translation_memory import Memory
from babelcart.translation.translator import Translator

# Tag as files and settings write it -> ISO 639-1 code.
TAGS = {
    "en": "en", "EN": "en", " en ": "en", "en\u200b": "en", "\ufeffen": "en", "ｅｎ": "en", "en-US": "en", "en_GB": "en",
    "en_US.UTF-8": "en",
    "de_DE@euro": "de", "vn": "vi", "VN": "vi", "pt-BR": "pt", "pt-PT": "pt", "zh-TW": "zh", "zh-CN": "zh", "zh-Hant-HK": "zh",
    "zh_Hans": "zh", "cmn": "zh", "jp": "ja", "cn": "zh", "cz": "cs", "gr": "el", "ua": "uk", "iw": "he", "in": "id", "ji": "yi",
    "tl": "fil", "fil": "fil", "nb": "nb", "nb-NO": "nb", "no": "no", "sr-Latn": "sr", "sh": "sr", "eng": "en", "deu": "de", "ger": "de",
    "zho": "zh", "chi": "zh", "spa": "es", "ENG-us": "en", "es-419": "es",
}  # fmt: skip
UNKNOWN = ("klingon", "", " ", "x-none", "English", "Deutsch", "und", "mul", "zxx", "US", "us-en", "1", "en/us", "all", "*")


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_has_one_code(tag: str) -> None:
    assert languages.iso_code(tag) == TAGS[tag]


@pytest.mark.parametrize("tag", UNKNOWN)
def test_an_unknown_tag_has_no_code(tag: str) -> None:
    assert languages.iso_code(tag) is None


def test_three_letter_codes_are_those_of_iso_639() -> None:
    for language in Language.all():
        two, three = language.iso_code_639_1.name, language.iso_code_639_3.name
        assert languages.iso_code(three) == languages.iso_code(two) is not None
    assert all(languages.iso_code(code) in (code, languages.ALIASES.get(code)) for code in languages.CODES)


def test_a_language_is_kept_once() -> None:
    assert languages.codes(["pt-BR", "en", "pt-PT", "EN"], "x") == ("pt", "en")


def _train_languages(tag: str) -> object:
    return build_section(split.Split, {"train_languages": [tag]}, "split").train_languages[0]


def _source_languages(tag: str) -> object:
    return build_section(Expansion, {"source_languages": [tag]}, "translate.qc").source_languages[0]


def _target_languages(tag: str) -> object:
    targets = build_section(Expansion, {"target_languages": [tag]}, "translate.qc").target_languages
    return targets[0] if targets else None


def _pivot(tag: str) -> object:
    return build_section(TranslateSettings, {"memory": "", "pivot": tag}, "translate").pivot


def _directions(tag: str) -> object:
    values = {"kind": "neural", "directions": {f"{tag.strip().replace('-', '_')}-de": {"model": "m", "vocabulary": "v"}}}
    return next(iter(build_section(EngineSettings, values, "translate.engines.x").directions)).partition("-")[0]


def _memory_file(tag: str) -> object:
    return memory_files._clean(Entry("given", "", tag, "ru", "text", "Text"), "memory.csv, line 2").source


def _memory_target(tag: str) -> object:
    return memory_files._clean(Entry("given", "", "ru", tag, "Text", "text"), "memory.csv, line 2").target


def _subset(tag: str) -> object:
    spec = {"models": ["tiny"], "tasks": ["qc"], "seeds": [0], "cells": {"a": {}}, "subsets": {"qc": {"unseen": [tag]}}}
    experiments.jobs(spec)
    return experiments.subset_languages([tag], "subsets.qc.unseen")[0]


def _language_map(tag: str) -> object:
    return languages.iso_code(next(iter((build_section(ReadOptions, {"languages": {"shop 1": tag}}, "data").languages or {}).values())))


def _constant(tag: str) -> object:
    return languages.iso_code(str((build_section(ReadOptions, {"constants": {"language": tag}}, "data").constants or {})["language"]))


# Every setting, file and option that takes a language, and the code that it gives for a tag.
BORDERS: list[tuple[str, Callable[[str], object]]] = [
    ("split.train_languages", _train_languages),
    ("translate.TASK.source_languages", _source_languages),
    ("translate.TASK.target_languages", _target_languages),
    ("translate.pivot", _pivot),
    ("translate.engines.NAME.directions", _directions),
    ("translation memories: source", _memory_file),
    ("translation memories: target", _memory_target),
    ("experiments: subsets", _subset),
    ("data: languages", _language_map),
    ("data: constants.language", _constant),
]


@pytest.mark.parametrize(("border", "code_of"), BORDERS, ids=[border for border, _ in BORDERS])
def test_every_border_takes_the_tags_of_files_and_refuses_unknown_ones(border: str, code_of: Callable[[str], object]) -> None:
    for tag, code in TAGS.items():
        if code != "de" or "directions" not in border:
            assert code_of(tag) == code, (border, tag)
    for tag in ("klingon", "x-none", "English"):
        with pytest.raises(UserError, match=tag.replace("-", ".")):
            code_of(tag)


@pytest.mark.parametrize(("spec", "keys"), [({"subset": {}}, "subset"), ({"models": ...}, "models")])
def test_wrong_keys_of_a_specification_of_experiments_are_refused(spec: dict[str, object], keys: str) -> None:
    complete = {"models": [], "tasks": [], "seeds": [], "cells": {}, "subsets": {}, **spec}
    with pytest.raises(UserError, match=f"unknown keys or lacks some: {keys}; accepted: cells"):
        experiments.jobs({key: value for key, value in complete.items() if value is not ...})


def test_a_refusal_names_the_setting_and_what_is_accepted() -> None:
    with pytest.raises(UserError) as error:
        _train_languages("klingon")
    assert str(error.value).startswith("params.yaml: split: train_languages: 'klingon' is not a language; accepted: ISO 639 codes")


@pytest.mark.parametrize("direction", ["en", "en-pt-BR", "", "en-klingon", "en_pt"])
def test_a_wrong_direction_is_refused(direction: str) -> None:
    with pytest.raises(UserError, match=r"translate\.engines\.x: directions: "):
        build_section(
            EngineSettings, {"kind": "neural", "directions": {direction: {"model": "m", "vocabulary": "v"}}}, "translate.engines.x"
        )


def test_a_direction_that_is_listed_twice_is_refused() -> None:
    model = {"model": "m", "vocabulary": "v"}
    with pytest.raises(UserError, match="names a pair of languages twice: en-pt, EN-pt_BR"):
        build_section(EngineSettings, {"kind": "neural", "directions": {"en-pt": model, "EN-pt_BR": model}}, "translate.engines.x")


def rows(*tags: str) -> pd.DataFrame:
    records = [
        (f"{index}", "qi", languages.iso_code(tag), tag, f"query {index}", "item", index % 2, "", ()) for index, tag in enumerate(tags)
    ]
    return pd.DataFrame(records, columns=list(PREPARED_COLUMNS)).astype({"label": "Int8"})


def test_train_languages_that_no_row_has_are_refused_with_counts() -> None:
    table = rows("en", "pt-BR", "en", "vn")
    kind = build_section(split.Split, {"train_languages": ["EN", "zh-TW", "vn"]}, "split")
    with pytest.raises(UserError, match="lists zh, but no train row has this language; the rows have en 2, pt 1, vi 1"):
        split.split_rows(table, validation_share=0.5, test_share=0.0, train_languages=kind.train_languages, seed=0)


def test_source_languages_that_train_lacks_are_refused_with_counts(tmp_path: Path) -> None:
    parts = {name: rows("en", "en", "pt").assign(group="x") for name in ("train", "validation", "dev", "test")}
    expansion, settings = Expansion(source_languages=("en", "fr"), target_languages=("de",)), TranslateSettings(memory="")
    with Memory(tmp_path / "memory.sqlite") as memory, pytest.raises(UserError, match=r"lists fr, but no train row .* en 2, pt 1"):
        add_translations(parts, expansion, settings, Translator(memory, [], settings))


def test_validation_without_rows_in_the_source_languages_gets_no_copies(tmp_path: Path) -> None:
    parts = {name: rows("pt", "pt", "en").assign(group="x") for name in ("train", "dev", "test")}
    parts["validation"] = rows("pt").assign(group="y")
    expansion, settings = Expansion(source_languages=("en",), target_languages=("de",)), TranslateSettings(memory="")
    with Memory(tmp_path / "memory.sqlite") as memory:
        extended, counts = add_translations(parts, expansion, settings, Translator(memory, [], settings))
    assert len(extended["validation"]) == 1
    assert counts["train"]["de"]["asked"] > 0


@pytest.mark.parametrize(("share", "has_rows"), [(0.1, True), (0.0, False)])
def test_test_rows_come_from_exactly_one_place(share: float, has_rows: bool) -> None:
    split.check_test_rows(0.1, "qc", False)
    split.check_test_rows(0.0, "qc", True)
    with pytest.raises(UserError, match=r"split\.test_share .*data\.qc\.test|data\.qc\.test .*split\.test_share"):
        split.check_test_rows(share, "qc", has_rows)


def test_a_validation_share_of_0_is_refused() -> None:
    with pytest.raises(UserError, match=r"params\.yaml: split: validation_share is 0; accepted: more than 0"):
        build_section(split.Split, {"validation_share": 0}, "split")


def test_parts_with_one_label_are_reported() -> None:
    table = rows("en", "en", "en")
    parts = {"train": table, "validation": table[table["label"] == 0]}
    assert split.one_label_warnings(parts) == [
        "all 2 rows of validation have the label 0, so that neither a threshold nor the best adapter can be chosen"
    ]
