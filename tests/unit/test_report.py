"""The report shows the outputs of the other stages, treats text from the data as text, and works in a real browser."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from babelcart.core.errors import UserError
from babelcart.report import inputs, page, rows
from babelcart.scores import metrics
from babelcart.scores.formatting import format_probability
from tests.support.browser import chromium, console
from tests.support.imports import ROOT
from tests.support.project import Project, run, run_to

HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    '"><b onmouseover="window.hacked = 1">\'{{ 7 * 7 }}\u2028',
    "فستان سهرة <!-- ",
]
SETTINGS = metrics.Evaluate(bootstrap_draws=200)


def task_results(row_count: int = 400, task: str = "qc", **changes: Any) -> inputs.TaskResults:
    """Results of a task with hostile queries, categories and examples, scored by `metrics`; `changes` replaces fields."""
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, row_count)
    queries, categories = (
        HOSTILE + ["garden hose", "LED Lampe"],
        (f"{HOSTILE[0]},top", "home & garden,hoses", "phones, parts & cases,cases"),
    )
    table = pd.DataFrame(
        {
            "id": [str(row) for row in range(row_count)],
            "language": [("en", "de", "ar")[row // 4 % 3] for row in range(row_count)],
            "origin_query": [queries[row // 4 % 6] + f" {row // 8}" for row in range(row_count)],
            "candidate": [categories[row % 3] for row in range(row_count)],
            "label": pd.array(label, dtype="Int8"),
            "grade": [("Exact", HOSTILE[1])[row // 5 % 2] for row in range(row_count)],
            "levels": [tuple(categories[row % 3].split(",", 1)) for row in range(row_count)],
            "probability": np.clip(0.3 * label + generator.random(row_count) * 0.7, 0, 1),
        }
    )
    decision = metrics.decide(table, SETTINGS)
    scores, slices = metrics.evaluate(table, decision, ["en"], SETTINGS)
    curves = metrics.plot_tables(table, decision)
    quantiles = dict.fromkeys(("q05", "q25", "q50", "q75", "q95"), 0.1)
    fields = {
        "task": task,
        "split": "test",
        "predictions": table,
        "validation": table,
        "native_languages": ["en"],
        "scores": {"test": scores, "validation": scores},
        "slices": {"test": slices, "validation": slices},
        "ngram": {"test": scores},
        "translation": {"train": {"de": {"asked": 9, "translated": 5, "held_out": 1, "refused": {"missing": 2, HOSTILE[0]: 1}}}},
        "negatives": {
            "asked": 7,
            "short": 1,
            "made": {"easy": 6, "hard": 0},
            "refused": {"known": 2, "copy": 0},
            "told_apart": {"query": 0.5},
            "before": {"negative_share": 0.3, "language": {"en": 0.5, "de": 0.5}},
            "after": {"negative_share": 0.4, "language": {"en": 0.5, "de": 0.5}},
            "similarity": {"positive": quantiles, "easy": quantiles},
        },
        "examples": {"easy": [{"query": HOSTILE[1], "candidate": HOSTILE[3], "similarity": 0.1, "language": "en"}], "hard": []},
        "training": pd.DataFrame({"language": ["en", "de", "en"], "origin": ["native", "translated", "easy"]}),
        "curves": {
            "precision_recall": curves["precision_recall"],
            "calibration": curves["calibration"],
            "train/loss": pd.DataFrame({"step": [1, 2, 3], "loss": [0.7, 0.6, 0.5]}),
            "eval/auc": pd.DataFrame({"step": [1, 3], "auc": [0.6, 0.7]}),
        },
    }
    return inputs.TaskResults(**{**fields, **changes})


class Parsed(HTMLParser):
    """The elements of a page with their attributes, the text of each script, and all other text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data


def check_loads_nothing(html: str) -> None:
    """Check that a page links only to itself and that its policy allows only its own script."""
    parsed = Parsed(html)
    links = [
        value for _, attributes in parsed.elements for name, value in attributes.items() if name in ("src", "href", "xlink:href", "action")
    ]
    assert links
    assert all(str(link).startswith("#") or link == "data:," for link in links)
    assert not re.search(r"url\(|@import", html)
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    policy = next(str(attributes["content"]) for _, attributes in parsed.elements if "http-equiv" in attributes)
    digest = base64.b64encode(hashlib.sha256(parsed.scripts[1].encode()).digest()).decode()
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy


def test_the_stage_shows_the_outputs_of_the_other_stages(project: Project) -> None:
    project.change(tasks=["qc"])
    run_to("evaluate")
    run("baseline", "--task", "qc")
    run("report", "--model", "tiny")
    path = Path("reports/tiny.html")
    html = path.read_text(encoding="utf-8")
    check_loads_nothing(html)
    parsed = Parsed(html)
    (browser_rows,) = json.loads(parsed.scripts[0])
    test, scores = pd.read_parquet("predictions/tiny/qc/test.parquet"), json.loads(Path("metrics/tiny/qc.json").read_text())["test"]
    texts = [
        (identifier, browser_rows["queries"][query], browser_rows["candidates"][candidate])
        for identifier, query, candidate in zip(browser_rows["id"], browser_rows["query"], browser_rows["candidate"], strict=True)
    ]
    assert texts == list(test[["id", "origin_query", "candidate"]].itertuples(index=False, name=None))
    assert [kind // 2 for kind in browser_rows["kind"]] == test["label"].tolist()
    assert [kind % 2 for kind in browser_rows["kind"]] == (test["probability"] >= scores["threshold"]).astype(int).tolist()
    for name in ("f1", "floor_f1", "auc", "precision", "recall"):
        assert f"{scores['overall'][name]:.3f}" in parsed.text

    # A second run, in another process, writes the same bytes and does not import torch.
    first = path.read_bytes()
    code = "import sys; from stages.report import main; main(['--model', 'tiny'], standalone_mode=False); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert path.read_bytes() == first


def test_the_page_shows_the_last_split_with_known_labels() -> None:
    scores = task_results().scores
    assert metrics.best_labelled_split({**scores, "dev": {}}) == "test"
    assert metrics.best_labelled_split({"validation": {}, "dev": {}}) == "dev"
    split = metrics.best_labelled_split({"validation": {}})
    validation_only = task_results(scores={"validation": scores["validation"]}, split=split, ngram={})
    assert "400 validation rows of QC" in page.render_page("tiny", [validation_only], SETTINGS)


def test_a_page_without_test_labels_names_the_source_of_its_scores() -> None:
    results = task_results()
    validation_only = task_results(scores={"validation": results.scores["validation"]}, split="validation", ngram={})
    text = re.sub(r"\s+", " ", Parsed(page.render_page("tiny", [validation_only], SETTINGS)).text)
    assert "QC: no labelled row of test or dev was scored, so this page shows the validation rows." in text
    assert "selected on the same rows" in text
    # The mean of a validation score and a test score has no meaning.
    text = Parsed(page.render_page("tiny", [validation_only, task_results(task="qi")], SETTINGS)).text
    assert "400 validation rows of QC" in text
    assert "400 test rows of QI" in text
    assert "Mean F1" not in text
    assert "Mean F1" in Parsed(page.render_page("tiny", [results, task_results(task="qi")], SETTINGS)).text
    assert "no labelled row" not in Parsed(page.render_page("tiny", [results], SETTINGS)).text


def test_a_partly_labelled_split_shows_its_number_of_labels() -> None:
    predictions = task_results().predictions
    predictions.loc[::4, "label"] = pd.NA
    scores, slices = metrics.evaluate(predictions, metrics.decide(metrics.labelled_rows(predictions), SETTINGS), ["en"], SETTINGS)
    results = task_results(predictions=predictions, scores={"test": scores, "validation": scores}, slices={"test": slices})
    parsed = Parsed(page.render_page("tiny", [results], SETTINGS))
    assert "300 test rows of QC (query and category, 300 of 400 rows labelled)" in parsed.text
    assert "300 of 400 test rows labelled" in parsed.text
    assert "300 of 400 labelled" in parsed.text
    browser_rows = json.loads(parsed.scripts[0])[0]
    assert browser_rows["id"] == predictions.loc[predictions["label"].notna(), "id"].tolist()
    sizes = {
        group["title"]: [group["value_index"].count(index) for index in range(len(group["values"]))] for group in browser_rows["slices"]
    }
    for group, title in inputs.GROUPS.items():
        values = slices.get(group, {name: scores[name] for name in ("seen", "unseen") if name in scores})
        assert sorted(sizes[title]) == sorted(slice_scores["rows"] for slice_scores in values.values())


def test_grades_are_shown_with_the_share_predicted_relevant() -> None:
    results = task_results()
    text = re.sub(r"\s+", " ", Parsed(page.render_page("tiny", [results], SETTINGS)).text)
    exact = results.slices["test"]["grade"]["Exact"]
    assert f"Exact {exact['rows']}{exact['positive_share']:.3f}{exact['predicted_share']:.3f}".replace(" ", "") in text.replace(" ", "")
    assert "Grade" not in results.slice_scores()


def test_the_rows_of_a_confident_model_keep_their_distance_from_the_threshold() -> None:
    """Rounded to four digits, all probabilities would be 1 and no row could be distinguished."""
    predictions = task_results().predictions
    predictions["probability"] = 1 - 1e-5 * (1.1 - predictions["probability"])
    decision = metrics.decide(predictions, SETTINGS)
    scores, slices = metrics.evaluate(predictions, decision, ["en"], SETTINGS)
    results = task_results(
        predictions=predictions, validation=predictions, scores={"test": scores, "validation": scores}, slices={"test": slices}
    )
    html = page.render_page("tiny", [results], SETTINGS)
    assert json.loads(Parsed(html).scripts[0])[0]["probability"] == predictions["probability"].tolist()
    assert f"at least {format_probability(decision.threshold)}." in Parsed(html).text
    assert f"chosen: {format_probability(decision.threshold)}" in html
    assert "chosen: 1.000" not in html


def test_text_from_the_data_never_becomes_markup() -> None:
    results = task_results()
    html = page.render_page("tiny", [results], SETTINGS)
    check_loads_nothing(html)
    parsed = Parsed(html)
    assert len(parsed.scripts) == 2
    tags = {tag for tag, _ in parsed.elements}
    assert not tags & {"img", "b"}
    assert not any(name.startswith("on") for _, attributes in parsed.elements for name in attributes)
    browser_rows = json.loads(parsed.scripts[0])[0]
    assert browser_rows["queries"] == list(dict.fromkeys(results.predictions["origin_query"]))
    # Outside of the embedded rows, it is escaped text: in an example and in a table of grades, and as a category in a chart and in a table.
    assert parsed.text.count(HOSTILE[1]) == 2
    assert parsed.text.count(HOSTILE[0]) >= 2


def test_the_rows_add_up_to_the_scores() -> None:
    results = task_results()
    browser_rows = rows.row_browser(results)
    scores, slices = results.scores["test"], results.slices["test"]
    counts = np.bincount(browser_rows["kind"], minlength=4)
    assert counts.sum() == scores["overall"]["rows"]
    assert counts[3] / (counts[3] + counts[1]) == pytest.approx(scores["overall"]["precision"], abs=1e-5)
    assert counts[3] / (counts[3] + counts[2]) == pytest.approx(scores["overall"]["recall"], abs=1e-5)
    groups = {title: group for group, title in inputs.GROUPS.items()}
    assert {group["title"] for group in browser_rows["slices"]} == set(groups)
    for group in browser_rows["slices"]:
        expected = slices.get(groups[group["title"]], scores)
        assert {value: group["value_index"].count(index) for index, value in enumerate(group["values"])} == {
            value: expected[value]["rows"] for value in group["values"]
        }
    with pytest.raises(UserError, match="dvc repro evaluate"):
        rows.row_browser(task_results(predictions=results.predictions[:10]))


def test_intervals_of_differences_use_the_draws_of_evaluate() -> None:
    results = task_results()
    draws = page.f1_draws(results, SETTINGS)
    overall = results.scores["test"]["overall"]
    assert np.quantile(draws["chosen"], [0.025, 0.975]) == pytest.approx([overall["f1_low"], overall["f1_high"]], abs=1e-5)
    label = results.predictions["label"].to_numpy(int)
    assert draws["floor"].mean() == pytest.approx(2 * label.mean() / (1 + label.mean()), abs=0.01)


def test_undefined_scores_and_disabled_stages_are_left_out() -> None:
    settings = metrics.Evaluate(bootstrap_draws=0)
    no_negatives = {"similarity": {}, "told_apart": {}, "made": {"easy": 0, "hard": 0}}
    results = task_results()
    minimal = task_results(
        negatives={**results.negatives, **no_negatives},
        translation={"pivot": {}},
        examples={},
        ngram={},
        curves={name: results.curves[name] for name in ("precision_recall", "calibration")},
    )
    html = page.render_page("tiny", [minimal], settings)
    assert "Rows chosen for translation" not in html
    assert "Translation counts" not in html
    assert "Similarity" not in html
    assert html == page.render_page("tiny", [minimal], settings)


def luminance(colour: str) -> float:
    """Relative luminance of a colour (#rrggbb or #rgb), as WCAG 2 defines it."""
    digits = colour.lstrip("#") if len(colour) == 7 else "".join(digit * 2 for digit in colour.lstrip("#"))
    channels = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    linear = [channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_have_the_contrast_that_wcag_requires() -> None:
    themes = re.findall(r":root \{(.*?)\}", (ROOT / "babelcart/report/report.css").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(themes) == 2
    for theme in themes:
        luminances = {name: luminance(colour) for name, colour in re.findall(r"--([\w-]+): (#\w+);", theme)}
        pairs = list(itertools.product(("ink", "muted", "link", "model", "other"), ("page", "card")))
        for text, background in [*pairs, ("bad", "bad-back"), ("miss", "miss-back"), ("good", "good-back")]:
            high, low = sorted((luminances[text], luminances[background]), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, background)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium that shows a page with two tasks of hostile rows."""
    path = tmp_path_factory.mktemp("report") / "page.html"
    path.write_text(page.render_page("tiny", [task_results(), task_results(60, "qi")], SETTINGS), encoding="utf-8")
    with chromium() as chrome:
        chrome.get(path.as_uri())
        yield chrome


def choose(browser: Any, **choices: str) -> list[list[str]]:
    """Reset the filters, set some of them as a user does, and return the cells of the visible rows."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select, WebDriverWait

    browser.find_element(By.CSS_SELECTOR, "button[type=reset]").click()
    for name, choice in choices.items():
        field = browser.find_element(By.NAME, name)
        if name == "search":
            field.send_keys(choice)
        else:
            Select(field).select_by_visible_text(choice)
    # The search waits for a pause in typing.
    before = browser.execute_script("return performance.now()")
    WebDriverWait(browser, 10).until(lambda driver: driver.execute_script("return performance.now()") > before + 400)
    return visible_rows(browser)


def visible_rows(browser: Any) -> list[list[str]]:
    """Return the cells of the visible rows."""
    return browser.execute_script(
        "return [...document.querySelectorAll('#rows tbody tr')].map(row => [...row.cells].map(cell => cell.firstChild.textContent))"
    )


def status(browser: Any) -> str:
    """Return the line above the rows that counts them."""
    return browser.execute_script("return document.getElementById('count').textContent")


def test_the_filters_find_the_rows(browser: Any) -> None:
    results = task_results()
    table = results.predictions
    counts = np.bincount(rows.row_browser(results)["kind"], minlength=4)
    choose(browser)
    assert status(browser) == f"{counts[1] + counts[2]} of 400 rows: {counts[1]} false positives, {counts[2]} false negatives, 0 correct"
    visible = choose(browser, kind="false negatives")
    assert {cells[3] for cells in visible} == {"false negative"}
    assert status(browser).startswith(f"{counts[2]} of 400")
    visible = choose(browser, kind="correct predictions")
    assert {cells[3] for cells in visible} == {"true positive", "true negative"}
    assert status(browser) == f"{counts[0] + counts[3]} of 400 rows: 0 false positives, 0 false negatives, {counts[0] + counts[3]} correct"
    visible = choose(browser, kind="all rows", language="de – German")
    assert {cells[0] for cells in visible} == {"de"}
    assert status(browser).startswith(f"{(table['language'] == 'de').sum()} of 400")
    choose(browser, kind="all rows", slice="unseen")
    assert status(browser).startswith(f"{(table['language'] != 'en').sum()} of 400")
    visible = choose(browser, kind="all rows", confidence="high: 0.75 or more")
    assert all(float(cells[5]) >= 0.75 for cells in visible)
    high = status(browser)
    visible = choose(browser, kind="all rows", confidence="low: below 0.25")
    assert all(float(cells[5]) <= 0.25 for cells in visible)
    assert high != status(browser)
    visible = choose(browser, kind="all rows", search="lampe led 5")
    assert {cells[1] for cells in visible} == {query for query in table["origin_query"] if "LED Lampe" in query and "5" in query}
    visible = choose(browser, search="no such words")
    assert visible == []
    assert status(browser).startswith("0 of 400 rows")


def test_hostile_rows_are_shown_as_text(browser: Any) -> None:
    visible = choose(browser, kind="all rows", search="window.hacked onerror")
    assert {cells[1][: len(HOSTILE[1])] for cells in visible} == {HOSTILE[1]}
    assert browser.execute_script("return [window.hacked, document.querySelectorAll('main img, main b').length]") == [None, 0]
    choose(browser, kind="all rows", search="فستان")
    assert browser.execute_script("return getComputedStyle(document.querySelector('#rows tbody td:nth-child(2) .text')).direction") == "rtl"


def test_pages_sorting_and_tasks_work_from_the_keyboard(browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    def focused() -> str:
        return browser.execute_script("return document.activeElement.textContent")

    first_page = choose(browser, kind="all rows")
    assert len(first_page) == 50
    next_button = browser.find_element(By.ID, "next")
    for _ in range(9):
        next_button.send_keys(Keys.ENTER)
    assert browser.find_element(By.ID, "page-number").text == "Page 8 of 8"
    assert next_button.get_attribute("aria-disabled") == "true"
    assert focused() == "Next"
    assert not set(map(tuple, first_page)) & set(map(tuple, visible_rows(browser)))

    header = browser.find_element(By.CSS_SELECTOR, "#rows button[value=probability]")
    for direction, descending in (("descending", True), ("ascending", False)):
        header.send_keys(Keys.SPACE)
        probabilities = [float(cells[4]) for cells in visible_rows(browser)]
        assert probabilities == sorted(probabilities, reverse=descending)
        assert browser.execute_script("return arguments[0].parentElement.ariaSort", header) == direction
    header.send_keys(Keys.TAB)
    assert focused() == "Confidence"
    # Every control has an accessible name.
    controls = browser.find_elements(By.CSS_SELECTOR, "select, input, button")
    assert all(control.accessible_name for control in controls)

    choose(browser, task="QI", kind="all rows")
    assert "of 60 rows" in status(browser)
    choose(browser, task="QC")
    assert "of 400 rows" in status(browser)


def test_the_page_fits_a_phone_and_has_a_dark_theme(browser: Any) -> None:
    media = "Emulation.setEmulatedMedia"
    backgrounds = []
    for scheme in ("light", "dark"):
        browser.execute_cdp_cmd(media, {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        backgrounds.append(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert backgrounds[0] != backgrounds[1]
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 360, "height": 780, "deviceScaleFactor": 1, "mobile": True})
    browser.execute_script("for (const details of document.querySelectorAll('details')) details.open = true")
    assert browser.execute_script("return document.documentElement.scrollWidth") == 360
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_loads_nothing_and_the_console_stays_empty(browser: Any) -> None:
    assert console(browser) == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
