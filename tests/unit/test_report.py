"""The page: what it says is what the stages wrote, whatever stands in the rows; and how it behaves in a real browser."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import re
import shutil
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
from babelcart.report import page
from babelcart.scores import metrics
from tests.support.imports import ROOT
from tests.support.project import Project, run, run_to

HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    '"><b onmouseover="window.hacked = 1">\'{{ 7 * 7 }}\u2028',
    "فستان سهرة <!-- ",
]
SETTINGS = metrics.Evaluate(bootstrap_draws=200)


def outcome(rows: int = 400, task: str = "qc", **change: Any) -> page.TaskResults:
    """Rows with hostile queries, top categories and examples, scored by `metrics`."""
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, rows)
    table = pd.DataFrame(
        {
            "id": [str(number) for number in range(rows)],
            "language": [("en", "de", "ar")[number // 4 % 3] for number in range(rows)],
            "origin_query": [(HOSTILE + ["garden hose", "LED Lampe"])[number // 4 % 6] + f" {number // 8}" for number in range(rows)],
            "candidate": [
                (f"{HOSTILE[0]},top", "home & garden,hoses", "phones, parts & cases,cases")[number % 3] for number in range(rows)
            ],
            "label": pd.array(label, dtype="Int8"),
            "probability": np.clip(0.3 * label + generator.random(rows) * 0.7, 0, 1),
        }
    )
    decision = metrics.decide(table, SETTINGS)
    scores, parts = metrics.evaluate(table, decision, ["en"], SETTINGS, task)
    curves = metrics.plot_tables(table, decision)
    quantiles = dict.fromkeys(("q05", "q25", "q50", "q75", "q95"), 0.1)
    made = {
        "task": task,
        "split": "test",
        "predictions": table,
        "validation": table,
        "native_languages": ["en"],
        "scores": {"test": scores, "validation": scores},
        "parts": {"test": parts, "validation": parts},
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
    return page.TaskResults(**{**made, **change})


class Parsed(HTMLParser):
    """Elements with their attributes, and the text of each script."""

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


def test_the_stage_writes_what_the_others_found(project: Project) -> None:
    project.change(tasks=["qc"])
    run_to("evaluate")
    run("baseline", "--task", "qc")
    run("report", "--model", "tiny")
    path = Path("reports/tiny.html")
    html = path.read_text(encoding="utf-8")
    check_loads_nothing(html)
    parsed = Parsed(html)
    (rows,) = json.loads(parsed.scripts[0])
    test, scores = pd.read_parquet("predictions/tiny/qc/test.parquet"), json.loads(Path("metrics/tiny/qc.json").read_text())["test"]
    texts = [(rows["id"][n], rows["queries"][rows["query"][n]], rows["candidates"][rows["candidate"][n]]) for n in range(len(rows["id"]))]
    assert texts == list(test[["id", "origin_query", "candidate"]].itertuples(index=False, name=None))
    assert [kind // 2 for kind in rows["kind"]] == test["label"].tolist()
    assert [kind % 2 for kind in rows["kind"]] == (test["probability"] >= scores["threshold"]).astype(int).tolist()
    for name in ("f1", "floor_f1", "auc", "precision", "recall"):
        assert f"{scores['overall'][name]:.3f}" in parsed.text

    # Again, in a process of its own: the same bytes, and no torch.
    first = path.read_bytes()
    code = "import sys; from stages.report import main; main(['--model', 'tiny'], standalone_mode=False); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert path.read_bytes() == first


def test_the_page_is_about_the_last_split_with_labels() -> None:
    scores = outcome().scores
    assert page.best_labelled_split({**scores, "dev": {}}) == "test"
    assert page.best_labelled_split({"validation": {}, "dev": {}}) == "dev"
    alone = outcome(scores={"validation": scores["validation"]}, split=page.best_labelled_split({"validation": {}}), ngram={})
    assert "400 validation rows of QC" in page.render_page("tiny", [alone], SETTINGS)


def test_text_from_the_data_never_becomes_markup() -> None:
    made = outcome()
    html = page.render_page("tiny", [made], SETTINGS)
    check_loads_nothing(html)
    parsed = Parsed(html)
    assert len(parsed.scripts) == 2
    tags = {tag for tag, _ in parsed.elements}
    assert not tags & {"img", "b"}
    assert not any(name.startswith("on") for _, attributes in parsed.elements for name in attributes)
    rows = json.loads(parsed.scripts[0])[0]
    assert rows["queries"] == list(dict.fromkeys(made.predictions["origin_query"]))
    # Where it does not go through the script, it is text too: an example, a category in a chart and in a table.
    assert parsed.text.count(HOSTILE[1]) == 1
    assert parsed.text.count(HOSTILE[0]) >= 2


def test_the_rows_add_up_to_the_scores() -> None:
    made = outcome()
    rows = page.row_browser(made)
    scores, parts = made.scores["test"], made.parts["test"]
    counts = np.bincount(rows["kind"], minlength=4)
    assert counts.sum() == scores["overall"]["rows"]
    assert counts[3] / (counts[3] + counts[1]) == pytest.approx(scores["overall"]["precision"], abs=1e-5)
    assert counts[3] / (counts[3] + counts[2]) == pytest.approx(scores["overall"]["recall"], abs=1e-5)
    titles = {title: group for group, title in page.GROUPS.items()}
    assert {part["title"] for part in rows["slices"]} == set(titles)
    for part in rows["slices"]:
        found = parts.get(titles[part["title"]], scores)
        assert {value: part["of"].count(place) for place, value in enumerate(part["values"])} == {
            value: found[value]["rows"] for value in part["values"]
        }
    with pytest.raises(UserError, match="dvc repro evaluate"):
        page.row_browser(outcome(predictions=made.predictions[:10]))


def test_differences_have_the_draws_of_evaluate() -> None:
    made = outcome()
    draws = page.f1_draws(made, SETTINGS)
    overall = made.scores["test"]["overall"]
    assert np.quantile(draws["chosen"], [0.025, 0.975]) == pytest.approx([overall["f1_low"], overall["f1_high"]], abs=1e-5)
    label = made.predictions["label"].to_numpy(int)
    assert draws["floor"].mean() == pytest.approx(2 * label.mean() / (1 + label.mean()), abs=0.01)


def test_what_is_undefined_or_switched_off_is_left_out() -> None:
    settings = metrics.Evaluate(bootstrap_draws=0)
    few = {"similarity": {}, "told_apart": {}, "made": {"easy": 0, "hard": 0}}
    made = outcome()
    bare = outcome(
        negatives={**made.negatives, **few},
        translation={"pivot": {}},
        examples={},
        ngram={},
        curves={name: made.curves[name] for name in ("precision_recall", "calibration")},
    )
    html = page.render_page("tiny", [bare], settings)
    assert "Numbers of translation" not in html
    assert "Similarity" not in html
    assert html == page.render_page("tiny", [bare], settings)


def luminance(colour: str) -> float:
    full = colour.lstrip("#") if len(colour) == 7 else "".join(digit * 2 for digit in colour.lstrip("#"))
    parts = [int(full[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_have_the_contrast_that_wcag_asks_for() -> None:
    themes = re.findall(r":root \{(.*?)\}", (ROOT / "babelcart/report/report.css").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(themes) == 2
    for theme in themes:
        colours = {name: luminance(value) for name, value in re.findall(r"--([\w-]+): (#\w+);", theme)}
        pairs = list(itertools.product(("ink", "muted", "link", "model", "other"), ("page", "card")))
        for front, back in [*pairs, ("bad", "bad-back"), ("miss", "miss-back"), ("good", "good-back")]:
            high, low = sorted((colours[front], colours[back]), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (front, back)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium with two tasks of hostile rows."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install -e '.[dev]'")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    path = tmp_path_factory.mktemp("report") / "page.html"
    path.write_text(page.render_page("tiny", [outcome(), outcome(60, "qi")], SETTINGS), encoding="utf-8")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "disable-background-networking",
        "window-size=1200,900",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        opened.get(path.as_uri())
        yield opened
    finally:
        opened.quit()


def choose(browser: Any, **choices: str) -> list[list[str]]:
    """Set filters as a person does, and give the cells of the rows that are shown."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select, WebDriverWait

    browser.find_element(By.CSS_SELECTOR, "button[type=reset]").click()
    for name, value in choices.items():
        field = browser.find_element(By.NAME, name)
        if name == "search":
            field.send_keys(value)
        else:
            Select(field).select_by_visible_text(value)
    # The search waits for a pause in typing.
    before = browser.execute_script("return performance.now()")
    WebDriverWait(browser, 10).until(lambda one: one.execute_script("return performance.now()") > before + 400)
    return shown(browser)


def shown(browser: Any) -> list[list[str]]:
    return browser.execute_script(
        "return [...document.querySelectorAll('#rows tbody tr')].map(row => [...row.cells].map(cell => cell.firstChild.textContent))"
    )


def status(browser: Any) -> str:
    return browser.execute_script("return document.getElementById('count').textContent")


def test_the_filters_find_the_rows(browser: Any) -> None:
    made = outcome()
    rows, table = page.row_browser(made), made.predictions
    kinds = np.bincount(rows["kind"], minlength=4)
    choose(browser)
    assert status(browser) == f"{kinds[1] + kinds[2]} of 400 rows: {kinds[1]} false positives, {kinds[2]} false negatives, 0 right"
    rows_shown = choose(browser, kind="false negatives")
    assert {cells[3] for cells in rows_shown} == {"false negative"}
    assert status(browser).startswith(f"{kinds[2]} of 400")
    rows_shown = choose(browser, kind="all rows", language="de – German")
    assert {cells[0] for cells in rows_shown} == {"de"}
    assert status(browser).startswith(f"{(table['language'] == 'de').sum()} of 400")
    choose(browser, kind="all rows", slice="unseen")
    assert status(browser).startswith(f"{(table['language'] != 'en').sum()} of 400")
    rows_shown = choose(browser, kind="all rows", confidence="sure: 0.75 or more")
    assert all(float(cells[5]) >= 0.75 for cells in rows_shown)
    sure = status(browser)
    rows_shown = choose(browser, kind="all rows", confidence="unsure: under 0.25")
    assert all(float(cells[5]) <= 0.25 for cells in rows_shown)
    assert sure != status(browser)
    rows_shown = choose(browser, kind="all rows", search="lampe led 5")
    assert {cells[1] for cells in rows_shown} == {query for query in table["origin_query"] if "LED Lampe" in query and "5" in query}
    rows_shown = choose(browser, search="no such words")
    assert rows_shown == []
    assert status(browser).startswith("0 of 400 rows")


def test_hostile_rows_are_shown_as_text(browser: Any) -> None:
    found = choose(browser, kind="all rows", search="window.hacked onerror")
    assert {cells[1][: len(HOSTILE[1])] for cells in found} == {HOSTILE[1]}
    assert browser.execute_script("return [window.hacked, document.querySelectorAll('main img, main b').length]") == [None, 0]
    choose(browser, kind="all rows", search="فستان")
    assert browser.execute_script("return getComputedStyle(document.querySelector('#rows tbody td:nth-child(2) .text')).direction") == "rtl"


def test_pages_sorting_and_tasks_work_from_the_keyboard(browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    def focused() -> str:
        return browser.execute_script("return document.activeElement.textContent")

    first = choose(browser, kind="all rows")
    assert len(first) == 50
    turn = browser.find_element(By.ID, "next")
    for _ in range(9):
        turn.send_keys(Keys.ENTER)
    assert browser.find_element(By.ID, "place").text == "Page 8 of 8"
    assert turn.get_attribute("aria-disabled") == "true"
    assert focused() == "Next"
    assert not set(map(tuple, first)) & set(map(tuple, shown(browser)))

    header = browser.find_element(By.CSS_SELECTOR, "#rows button[value=probability]")
    for way, down in (("descending", True), ("ascending", False)):
        header.send_keys(Keys.SPACE)
        values = [float(cells[4]) for cells in shown(browser)]
        assert values == sorted(values, reverse=down)
        assert browser.execute_script("return arguments[0].parentElement.ariaSort", header) == way
    header.send_keys(Keys.TAB)
    assert focused() == "Confidence"
    # Every control has a name.
    controls = browser.find_elements(By.CSS_SELECTOR, "select, input, button")
    assert all(one.accessible_name for one in controls)

    choose(browser, task="QI", kind="all rows")
    assert "of 60 rows" in status(browser)
    choose(browser, task="QC")
    assert "of 400 rows" in status(browser)


def test_it_fits_a_phone_and_the_dark(browser: Any) -> None:
    media = "Emulation.setEmulatedMedia"
    backs = []
    for scheme in ("light", "dark"):
        browser.execute_cdp_cmd(media, {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        backs.append(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert backs[0] != backs[1]
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 360, "height": 780, "deviceScaleFactor": 1, "mobile": True})
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert browser.execute_script("return document.documentElement.scrollWidth") == 360
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_opens_without_a_complaint_and_loads_nothing(browser: Any) -> None:
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
