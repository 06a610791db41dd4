"""Errors in params.yaml: the message names the key, the value and what is accepted."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from babelcart.commands import check
from babelcart.core import config
from babelcart.core.errors import UserError
from babelcart.core.graph import read_sections
from babelcart.model.loading import ModelSettings
from babelcart.reading.sources import Data
from babelcart.training.loop import TrainSettings
from tests.support.imports import ROOT

SHIPPED = (ROOT / "params.yaml").read_text(encoding="utf-8")

WRONG = [
    ("batch_size: 32", "batch_sise: 32", "unknown key train.batch_sise; accepted: epochs"),
    ("batch_size: 32", "batch_size: 0", "train.batch_size is 0; accepted: 1 to 65536"),
    ("batch_size: 32", "batch_size: many", "train.batch_size is 'many'; accepted: an integer"),
    ("min_similarity: {ar: 0.28,", "min_similarity: {vn: 0.1, vi: 0.2,", "min_similarity names a language twice: vn, vi"),
    ("batch_size: 32", "batch_size: true", "train.batch_size is true; accepted: an integer"),
    ("learning_rate: 5.0e-4", "learning_rate: .nan", "train.learning_rate is nan; accepted: a number"),
    ("strategy: easy", "strategy: eazy", "negatives.qc.strategy is 'eazy'; accepted: one of 'none', 'easy'"),
    ("threshold: best_f1", "threshold: best", "evaluate.threshold is 'best'; accepted: a number or one of 'best_f1'"),
    ("threshold: best_f1", "threshold: 1.5", "evaluate.threshold is 1.5; accepted: 0 to 1"),
    ("  - qi\n", "  - qx\n", "tasks[1] is 'qx'; accepted: one of 'qc', 'qi'"),
    ("run:\n  - gemma3-270m", "run:\n  - gemma4", "no models.gemma4; models: has gemma3-270m"),
    ("validation_share: 0.08", "validation_share: 0", "split: validation_share is 0; accepted: more than 0"),
    ("train_languages: []", "train_languages: [en, klingon]", "split: train_languages: 'klingon' is not a language; accepted: ISO 639"),
    ("source_languages: []", "source_languages: [klingon]", "translate.qc: source_languages: 'klingon' is not a language"),
    ("target_languages: null", "target_languages: [xx]", "translate.qc: target_languages: 'xx' is not a language"),
    ("pivot: null", "pivot: English", "translate: pivot: 'English' is not a language"),
    ("        en-pt:", "        en-pt-BR:", "translate.engines.neural: directions: 'en-pt-BR' is not a direction"),
    ("test_share: 0.0", "test_share: 0.1", "split.test_share is 0.1, and data.qc.test lists files"),
    ("    test: [test_QC.txt]\n", "", "qc has no test rows: data.qc.test lists no files, and split.test_share is 0"),
    ("max_broken_rows: 0", "max_broken_rows: -1", "prepare.max_broken_rows is -1"),
    ("data:\n", "date:\n", "unknown key date"),
    ("      revision: 96b6f1eccf38110c56df3a15bffe176da04bfd80\n", "", "models.gemma3-12b.weights: revision is missing"),
    ("      random: gemma3_text\n", "", "models.tiny.weights: needs exactly one of packages, repo, folder, random"),
    ("    dtype: float32", "    dtype: float16", "models.tiny.dtype is 'float16'; accepted: one of 'float32', 'bfloat16'"),
    ("tasks:", "tasks: [", "is not YAML"),
    (SHIPPED, "- 1\n", "the file is"),
    (SHIPPED, "", "the file is null"),
    ("  tiny:", "  ../tiny:", "a model is named '../tiny'; accepted: letters"),
    ("  tiny:", "  translate:", "a model is named 'translate'"),
]


@pytest.fixture
def check_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Result]:
    """Run `babelcart check` on a params.yaml with a given text, next to the shipped dvc.yaml."""
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(text: str) -> Result:
        (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
        return CliRunner().invoke(check.main)

    return run


def test_the_shipped_settings_are_valid(check_text: Callable[[str], Result]) -> None:
    assert check_text(SHIPPED).exit_code == 0
    models = config.load("models", dict[str, ModelSettings])
    assert {"gemma3-270m", "smollm2-135m", "qwen25-05b", "gemma3-12b", "qwen25-14b", "tiny"} <= models.keys()
    assert models["gemma3-12b"].quantization == "nf4"


@pytest.mark.parametrize(("shipped_text", "wrong_text", "message"), WRONG)
def test_the_message_names_the_wrong_setting(check_text: Callable[[str], Result], shipped_text: str, wrong_text: str, message: str) -> None:
    assert shipped_text in SHIPPED
    result = check_text(SHIPPED.replace(shipped_text, wrong_text, 1))
    assert result.exit_code == 1
    assert message in result.output


def test_numbers_are_parsed_as_dvc_parses_them(check_text: Callable[[str], Result]) -> None:
    assert check_text(SHIPPED.replace("5.0e-4", "1e-4")).exit_code == 0
    assert config.load_section(TrainSettings).learning_rate == 1e-4


def test_an_unknown_section_is_refused_by_every_command_that_loads_settings(check_text: Callable[[str], Result]) -> None:
    assert check_text(SHIPPED + "\nspare: {}\n").exit_code == 1
    with pytest.raises(UserError, match="unknown key spare; accepted: attack, data"):
        config.load_section(TrainSettings)


def test_without_params_yaml_the_message_names_the_folder_to_run_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="top folder"):
        config.read_params()


def test_the_sections_of_dvc_yaml_are_those_of_the_dataclasses(check_text: Callable[[str], Result]) -> None:
    declared = check.declared_sections()
    assert {"models.*", "prompts.*", "prepare", "train"} <= declared.keys()
    with pytest.raises(UserError, match="uses the section spare, which no dataclass"):
        check.check_graph(declared, [*read_sections(), "spare"])
    used = read_sections()
    check_text(SHIPPED)  # params.yaml is that of the project
    with pytest.raises(UserError, match=r"no stage in dvc\.yaml uses the section train"):
        check.check_graph(declared, [name for name in used if name != "train"])


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


# Text of the shipped params.yaml, its replacement, and the message after the line number.
PITFALLS = [
    ("batch_size: 32", "batch_sise: 32", "unknown key train.batch_sise; .*Did you mean batch_size"),
    ("data:\n", "date:\n", "unknown key date; .*Did you mean data"),
    ("strategy: easy", "strategy: eazy", "negatives.qc.strategy is 'eazy'; .*Did you mean easy"),
    ("  path: data\n", "  path: data\n  columns: {candidat: title}\n", None),
    ("tasks:\n  - qc\n  - qi", "tasks: qc, qi", r"tasks is 'qc, qi'; .*; write a list: tasks: \[qc, qi\]"),
    ("train_languages: []", "train_languages: en", r"write a list: train_languages: \[en\]"),
    (
        "  path: data\n",
        "  path: data\n  encoding: 1252\n",
        r'data.encoding is 1252; accepted: a text or null; to write a text, quote it: "1252"',
    ),
    ("  path: data\n", "  path: 1e3\n", 'data.path is 1000.0; accepted: a text; to write a text, quote it: "1e3"'),
    ("  path: data\n", "  path: 2024-01-31\n", '2024-01-31 without quotes is a date; to write a text, quote it: "2024-01-31"'),
    ("  path: data\n", "  path: data\n  where: {shop: 012}\n", '012 without quotes is the number 12; to write a text, quote it: "012"'),
    ("  path: data\n", "  path: data\n  where: {shop: null}\n", "data.where"),
    ("  path: data\n", "  path: data\n  languages: {null: en}\n", 'data.languages has the key null, which is not a text; quote it: "null"'),
    ("  path: data\n", "  path: data\n  escape: #\n", "escape is empty, because # starts a comment; quote it"),
    ("batch_size: 32", "batch_size: 32\n  batch_size: 64", 'duplicate key "batch_size".*; keep one of them'),
    ("  batch_size: 32", "\tbatch_size: 32", "; indent with spaces"),
]


@pytest.mark.parametrize(("shipped_text", "wrong_text", "message"), PITFALLS)
def test_the_message_names_the_line_and_the_remedy(
    check_text: Callable[[str], Result], shipped_text: str, wrong_text: str, message: str | None
) -> None:
    text = SHIPPED.replace(shipped_text, wrong_text, 1)
    assert text != SHIPPED
    result = check_text(text)
    assert result.exit_code == 1
    if message is None:
        assert "columns names 'candidat'; accepted: id, task, language, origin_query, candidate, label, grade. Did you mean candidate?" in (
            result.output
        )
        return
    assert re.search(message, result.output), result.output
    (line,) = re.findall(r"params.yaml(?: is not YAML:|,) line (\d+)", result.output)
    first = line_of(SHIPPED, shipped_text)
    assert first <= int(line) <= first + wrong_text.count("\n")


@pytest.mark.parametrize(
    ("text", "code"), [("no", "no"), ("on", "on"), ("yes", "yes"), ('"012"', "012"), ('"null"', "null"), ("~x", "~x"), ("1:30", "1:30")]
)
def test_texts_that_resemble_other_values_stay_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, code: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(f"data: {{path: data, languages: {{{text}: nb}}, where: {{x: {text}}}, qi: {{train: a.csv}}}}\n")
    data = config.load_section(Data)
    assert data.languages == {code: "nb"}
    assert data.where == {"x": code}
    assert [source.files for source in data.files("qi").sources("train")] == [("a.csv",)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (SHIPPED.encode("utf-8-sig"), None),
        (SHIPPED.replace("\n", "\r\n").encode(), None),
        (SHIPPED.encode("utf-16"), "params.yaml is UTF-16 text, which DVC does not read; save it as UTF-8"),
        (SHIPPED.encode() + "# é\n".encode("latin-1"), f"line {SHIPPED.count(chr(10)) + 1}: .*; save the file as UTF-8"),
        (b"%YAML 1.1\n---\n" + SHIPPED.encode(), "line 1: %YAML 1.1 makes true and false of yes, no, on and off; remove this line"),
    ],
)
def test_the_file_may_have_a_byte_order_mark_and_line_ends_of_windows(
    check_text: Callable[[str], Result], content: bytes, message: str | None
) -> None:
    Path("params.yaml").write_bytes(content)
    result = CliRunner().invoke(check.main)
    assert (result.exit_code, bool(re.search(message or "", result.output))) == (int(bool(message)), True), result.output


def test_prompts_of_an_unknown_task_are_refused(check_text: Callable[[str], Result]) -> None:
    result = check_text(re.sub(r"(?ms)^prompts:\n.*?^  qi:", lambda match: match[0].replace("  qi:", "  qI:"), SHIPPED))
    assert "unknown key prompts.qI; accepted: qc, qi. Did you mean qi?" in result.output


def test_the_former_parts_of_a_prompt_are_refused_with_the_template_to_write(check_text: Callable[[str], Result]) -> None:
    former = r"""    query: "Relevant?\n{query}\n"
    candidate: "{candidate}"
    suffix: "\n:"
"""
    result = check_text(re.sub(r"    template: [^\n]*\n", lambda match: former, SHIPPED, count=1))
    assert "prompts.qc: query, candidate, suffix were replaced by one text" in result.output
    assert r'write `template: "Relevant?\n{query}\n{candidate}\n:"`' in result.output


@pytest.mark.parametrize(
    ("template", "message"),
    [('"{query} {candidate}"', "ends with a field"), ('"{query}:"', r"must contain \{candidate\}"), ("3", "a text")],
)
def test_a_template_that_cannot_be_answered_is_refused(check_text: Callable[[str], Result], template: str, message: str) -> None:
    result = check_text(re.sub(r"    template: [^\n]*\n", lambda match: f"    template: {template}\n", SHIPPED, count=1))
    assert re.search(f"prompts.qc.*{message}", result.output), result.output


def test_prompts_of_a_model_are_checked(check_text: Callable[[str], Result]) -> None:
    prompt = '{template: "{query} {candidate}:", positive: " yes", negative: " no"}'
    block = "  gemma3-270m:\n    prompts:\n      %s: %s\n"
    assert check_text(SHIPPED.replace("  gemma3-270m:\n", block % ("qc", prompt), 1)).exit_code == 0
    assert "prompts has the key 'qx'; accepted: qc, qi" in check_text(SHIPPED.replace("  gemma3-270m:\n", block % ("qx", prompt), 1)).output


def test_an_engine_and_a_model_that_do_not_exist_are_refused(check_text: Callable[[str], Result]) -> None:
    assert "Did you mean google?" in check_text(SHIPPED.replace("chain: []", "chain: [gogle]")).output
    assert "Did you mean gemma3-270m?" in check_text(SHIPPED.replace("run:\n  - gemma3-270m", "run:\n  - gemma3-270")).output
