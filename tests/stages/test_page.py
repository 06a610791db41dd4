"""The page of the server in Chromium, and the requests that it sends."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from babelcart.rows.text import normalise
from babelcart.scorer import Scorer, load_scorer
from babelcart.serving import app, engine, guard
from babelcart.serving.describe import Describer
from babelcart.serving.page import Page
from tests.support.browser import chromium, console
from tests.support.project import Project, run, run_to
from tests.support.serving import KEY, other_adapter, predicted, serve, serve_command

CANDIDATES = ["home & garden,watering,hoses", "home & garden,lamps", "toys,balls"]
LIMITS = guard.Limits(candidates=50)
HOSTILE = [
    "<img src=x onerror=window.hacked=1>",
    "<script>window.hacked=1</script>",
    "javascript:window.hacked=1",
    "\u202eabc",
    "فستان سهرة",
]


@pytest.fixture
def scorer(project: Project) -> Scorer:
    project.change(train={"learning_rate": 0.01})
    run_to("evaluate")
    return load_scorer("tiny", "qc")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as chrome:
        yield chrome


def application(scorers: dict[str, Scorer], key: str | None = None, limits: guard.Limits = LIMITS, **options: Any) -> Any:
    """Return an application with a page."""

    def load() -> list[engine.ServedModel]:
        return [engine.ServedModel(name, scorer, scorer.candidate_prefixes([])) for name, scorer in scorers.items()]

    queue = engine.Engine(load, 256, 10_000)
    queue.start()
    describer = Describer("qc", **options)
    describer.start()
    return app.build_app(queue, limits, key, page=Page(queue, limits, describer, CANDIDATES))


def wait(browser: Any, condition: str) -> None:
    """Wait until an expression of JavaScript is true."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 30).until(lambda driver: driver.execute_script(f"return {condition}"))


DESCRIBED = "!document.getElementById('results').hidden && !document.getElementById('facts').textContent.includes('…')"


def open_page(browser: Any, address: str, question: list[tuple[str, str]] | None = None) -> None:
    """Open the page in a new document; with a question, wait for its answers."""
    browser.get("about:blank")
    browser.get(f"{address}/" + (f"#{urlencode(question)}" if question else ""))
    wait(
        browser,
        "!document.getElementById('results').hidden" if question else "document.getElementById('models').textContent != 'Loading …'",
    )


def ask(browser: Any, query: str, candidates: list[str]) -> None:
    """Type a question, submit it from the keyboard, and wait for the answers."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.execute_script("document.getElementById('question').reset()")
    browser.find_element(By.NAME, "query").send_keys(query)
    browser.find_element(By.NAME, "candidates").send_keys("\n".join(candidates), Keys.CONTROL, Keys.ENTER)
    wait(browser, DESCRIBED)


def shown(browser: Any) -> list[list[str]]:
    """Return the texts of the cells of the answers, without notes."""
    cells = "[...row.cells].map(cell => (cell.querySelector('.text, .n') ?? cell).textContent)"
    return browser.execute_script(f"return [...document.querySelectorAll('#answers tbody tr')].map(row => {cells})")


def test_a_question_is_answered_as_by_the_interface(scorer: Scorer, browser: Any) -> None:
    with serve(application({"tiny": scorer})) as address:
        open_page(browser, address)
        ask(browser, "gartenschlauch", CANDIDATES)
        answers = httpx.post(f"{address}/v1/score", json={"query": "gartenschlauch", "candidates": CANDIDATES}).json()["results"][0]
        by_probability = sorted(answers["answers"], key=lambda answer: -answer["p_relevant"])
        assert [cells[0] for cells in shown(browser)] == [answer["candidate"] for answer in by_probability]
        assert [float(cells[1]) for cells in shown(browser)] == pytest.approx([answer["p_relevant"] for answer in by_probability], abs=6e-4)
        decisions = browser.execute_script("return [...document.querySelectorAll('#answers .kind')].map(chip => chip.textContent)")
        assert decisions == ["relevant" if answer["relevant"] else "not relevant" for answer in by_probability]
        assert "no training row has this category" in browser.execute_script("return document.getElementById('answers').textContent")
        facts = browser.execute_script("return document.getElementById('facts').textContent")
        assert "garden hose" in facts  # the translation memory knows the query
        assert "de – German" in facts
        link = browser.current_url
        before = shown(browser)
        browser.get("about:blank")
        browser.get(link)
        wait(browser, DESCRIBED)
        assert shown(browser) == before
        assert console(browser) == []


def test_hostile_texts_are_shown_as_text(scorer: Scorer, browser: Any) -> None:
    with serve(application({"tiny": scorer})) as address:
        browser.get(f"{address}/#{urlencode([('query', HOSTILE[0]), ('language', HOSTILE[1]), ('candidate', HOSTILE[2])])}")
        wait(browser, "!document.getElementById('error').hidden")
        assert f"'{HOSTILE[1]}' is not a language" in browser.execute_script("return document.getElementById('error').textContent")
        open_page(browser, address, [("query", HOSTILE[0]), *(("candidate", text) for text in HOSTILE)])
        assert {cells[0] for cells in shown(browser)} == set(HOSTILE)
        assert browser.execute_script("return [window.hacked, document.querySelectorAll('main img, main script').length]") == [None, 0]
        direction = "[...document.querySelectorAll('#answers .text')].find(cell => cell.textContent == arguments[0])"
        assert browser.execute_script(f"return getComputedStyle({direction}).direction", HOSTILE[4]) == "rtl"
        response = httpx.get(address)
        assert "script-src 'self'" in response.headers["content-security-policy"]
        browser.execute_script(
            "const added = document.createElement('script'); added.textContent = 'window.hacked = 1'; document.body.append(added)"
        )
        assert browser.execute_script("return window.hacked") is None
        assert "Content Security Policy" in "".join(console(browser))


def test_the_page_works_from_the_keyboard_and_on_a_phone(scorer: Scorer, browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    with serve(application({"tiny": scorer})) as address:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True})
        open_page(browser, address, [("query", "led lamp"), *(("candidate", text) for text in [*CANDIDATES, "word" * 60])])
        assert browser.execute_script("return document.documentElement.scrollWidth") == 360
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        header = browser.find_element(By.CSS_SELECTOR, "#answers button[value=candidate]")
        header.send_keys(Keys.SPACE)
        assert [cells[0] for cells in shown(browser)] == sorted([*CANDIDATES, "word" * 60])
        assert browser.execute_script("return document.activeElement.value") == "candidate"
        browser.switch_to.active_element.send_keys(Keys.SPACE)
        assert [cells[0] for cells in shown(browser)] == sorted([*CANDIDATES, "word" * 60], reverse=True)
        controls = browser.find_elements(By.CSS_SELECTOR, "input, select, textarea, button")
        assert all(control.accessible_name for control in controls if control.is_displayed())
        assert console(browser) == []


def test_a_branch_of_the_categories_fills_the_candidates(scorer: Scorer, browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    with serve(application({"tiny": scorer})) as address:
        open_page(browser, address)
        wait(browser, "document.getElementsByName('branch')[0].length > 1")
        branch = Select(browser.find_element(By.NAME, "branch"))
        assert [choice.text for choice in branch.options][1:] == [
            "All categories (3)",
            "home & garden (2)",
            "home & garden › watering (1)",
            "toys (1)",
        ]
        branch.select_by_visible_text("home & garden (2)")
        assert browser.execute_script("return document.getElementsByName('candidates')[0].value") == "\n".join(CANDIDATES[:2])


def test_two_models_are_compared(scorer: Scorer, browser: Any) -> None:
    other_adapter()
    other = load_scorer("tiny", "qc")
    with serve(application({"tiny": scorer, "tiny@other": other})) as address:
        open_page(browser, address, [("query", "dog bed"), *(("candidate", text) for text in CANDIDATES)])
        rows = {cells[0]: list(map(float, (cells[1], cells[2]))) for cells in shown(browser)}
        decisions = []
        for index, name in enumerate(("tiny", "tiny@other")):
            body = {"query": "dog bed", "candidates": CANDIDATES, "model": name}
            response = httpx.post(f"{address}/v1/score", json=body).json()
            assert (response["model"], response["revision"]) == (name, (scorer, other)[index].revision)
            for answer in response["results"][0]["answers"]:
                assert rows[answer["candidate"]][index] == pytest.approx(answer["p_relevant"], abs=6e-4)
            decisions.append([answer["relevant"] for answer in response["results"][0]["answers"]])
        assert scorer.revision != other.revision
        differing = sum(first != second for first, second in zip(*decisions, strict=True))
        message = f"the models differ on {differing}" if differing else "the models agree"
        assert message in browser.execute_script("return document.getElementById('status').textContent")
        assert browser.execute_script("return document.querySelectorAll('#answers .differs').length") == differing


def test_training_rows_need_the_key(scorer: Scorer, browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    with serve(application({"tiny": scorer}, KEY, training_rows=True)) as address:
        assert httpx.post(f"{address}/v1/describe", json={"query": "garden hose"}).status_code == 401
        browser.get("about:blank")
        browser.get(f"{address}/#" + urlencode([("query", "garden hose"), ("candidate", "toys,balls")]))
        wait(browser, "!document.getElementById('error').hidden")
        assert browser.find_element(By.ID, "error").text == "The API key is missing or wrong."
        console(browser)  # the refused request
        browser.find_element(By.NAME, "key").send_keys(KEY, Keys.ENTER)
        wait(browser, DESCRIBED)
        near = browser.execute_script("return document.querySelector('#training .text').textContent")
        assert normalise(near) == "garden hose"
        body = {"query": "garden hose"}
        described = httpx.post(f"{address}/v1/describe", json=body, headers={"Authorization": f"Bearer {KEY}"}).json()
        first = described["training_queries"][0]
        assert (first["query"], first["similarity"]) == ("garden hose", pytest.approx(1, abs=1e-3))
        assert {row["label"] for row in first["rows"]} == {0, 1}
        assert console(browser) == []


def test_the_categories_are_offered_as_soon_as_the_key_is_typed(scorer: Scorer, browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    with serve(application({"tiny": scorer}, KEY)) as address:
        browser.get("about:blank")
        browser.get(address)
        browser.execute_script("sessionStorage.clear()")
        browser.refresh()
        wait(browser, "!document.getElementById('error').hidden")
        browser.find_element(By.NAME, "key").send_keys(KEY, Keys.TAB)
        wait(browser, "document.getElementsByName('branch')[0].length > 1")
        assert browser.execute_script("return document.getElementById('error').hidden")
        console(browser)  # the refused request


def test_the_page_says_when_the_server_refuses(scorer: Scorer, browser: Any) -> None:
    with serve(application({"tiny": scorer})) as address:
        browser.get("about:blank")
        browser.get(f"{address}/#" + urlencode([("query", "a"), *(("candidate", str(number)) for number in range(51))]))
        wait(browser, "!document.getElementById('error').hidden")
        assert "the request has 51 candidates; accepted: at most 50" in browser.execute_script(
            "return document.getElementById('error').textContent"
        )
        console(browser)


def test_a_key_that_no_header_can_contain_is_wrong(scorer: Scorer, browser: Any) -> None:
    with serve(application({"tiny": scorer}, KEY)) as address:
        browser.get(f"{address}/page.css")
        browser.execute_script("sessionStorage.setItem('babelcart-key', 'ключ')")
        browser.get(address)
        wait(browser, "!document.getElementById('error').hidden")
        assert browser.execute_script("return document.getElementById('error').textContent") == "The API key is missing or wrong."
        assert browser.execute_script("return document.activeElement.name") == "key"
        browser.execute_script("sessionStorage.clear()")
        console(browser)


def test_answers_stay_if_the_query_cannot_be_described(scorer: Scorer, browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Describer, query: str, language: str | None) -> None:
        raise OSError("a defect")

    monkeypatch.setattr(Describer, "_describe", fails)
    with serve(application({"tiny": scorer})) as address:
        response = httpx.post(f"{address}/v1/describe", json={"query": "a"})
        assert (response.status_code, response.json()["message"]) == (500, "the query could not be described (OSError)")
        open_page(browser, address, [("query", "dog bed"), ("candidate", "toys,balls")])
        wait(browser, "!document.getElementById('error').hidden")
        assert [cells[0] for cells in shown(browser)] == ["toys,balls"]
        assert browser.execute_script("return document.getElementById('results').hidden") is False
        assert "not available" in browser.execute_script("return document.getElementById('facts').textContent")
        console(browser)


def test_a_description_that_takes_too_long_is_given_up(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(Describer, "_describe", lambda self, query, language: release.wait(30))
    served = application({"tiny": scorer}, limits=guard.Limits(seconds=0.2))
    with serve(served) as address:
        response = httpx.post(f"{address}/v1/describe", json={"query": "a"})
        assert (response.status_code, response.json()["message"]) == (504, "the query was not described within 0.2 seconds")
        release.set()


def test_the_address_and_the_answers_are_of_the_same_question(scorer: Scorer, browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    with serve(application({"tiny": scorer})) as address:
        open_page(browser, address, [("query", "dog bed"), ("candidate", "toys,balls")])
        link = browser.current_url
        browser.find_element(By.CLASS_NAME, "skip").send_keys(Keys.ENTER)
        assert browser.execute_script("return [location.href, document.activeElement.id]") == [link, "results"]
        assert browser.execute_script("return document.getElementsByName('query')[0].value") == "dog bed"
        browser.execute_script("location.hash = ''")
        wait(browser, "document.getElementById('results').hidden")
        assert browser.execute_script("return document.getElementsByName('query')[0].value") == ""
        browser.back()
        wait(browser, "!document.getElementById('results').hidden")
        assert [cells[0] for cells in shown(browser)] == ["toys,balls"]


def test_a_language_is_guessed_where_the_answer_needs_it(scorer: Scorer, browser: Any) -> None:
    scores = json.loads(Path("metrics/tiny/qc.json").read_text())
    scores["validation"]["thresholds"] = {"de": 0.0, "en": 1.0}
    Path("metrics/tiny/qc.json").write_text(json.dumps(scores), encoding="utf-8")
    with serve(application({"tiny": load_scorer("tiny", "qc")})) as address:
        open_page(browser, address, [("query", "gartenschlauch für den garten"), ("candidate", "toys,balls")])
        assert "Scored asde – German" in browser.execute_script("return document.getElementById('facts').textContent")
        assert "1 of 1 relevant" in browser.execute_script("return document.getElementById('status').textContent")


def serve_fails(*options: str) -> str:
    """Return the message with which the command refuses options."""
    return run("serve", "--task", "qc", "--model", "tiny", *options, fails=True).output


def test_queries_are_translated_by_local_engines_only(scorer: Scorer, project: Project) -> None:
    project.change(translate={"chain": ["google"], "allow_network": True})
    message = serve_fails("--port", "0", "--translate-to", "en")
    assert "no engine of translate.chain (google) runs on this machine" in message
    message = serve_fails("--translate-to", "klingon")
    assert "'klingon' is not a language; accepted: ISO 639 codes" in message


def test_labelled_rows_are_shown_only_with_a_key_on_loopback(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    message = serve_fails("--show-training-rows")
    assert "set BABELCART_API_KEY to a secret key, and listen on 127.0.0.1" in message
    monkeypatch.setenv("BABELCART_API_KEY", KEY)
    message = serve_fails("--show-training-rows", "--host", "0.0.0.0")
    assert "and listen on 127.0.0.1" in message


def test_another_model_is_served_beside_the_first(scorer: Scorer, project: Project) -> None:
    message = serve_fails("--compare", "tiny")
    assert "the adapter that the server has already" in message
    message = serve_fails("--compare", "../tiny@main")
    assert "'../tiny@main'; accepted: MODEL or MODEL@REVISION with a MODEL out of" in message
    params = (project.folder / "params.yaml").read_text(encoding="utf-8")
    (project.folder / "params.yaml").write_text(
        params.replace(
            "models:\n", "models:\n  twin: {weights: {licence: none, random: gemma3_text}, dtype: float32, r: 8, lora_alpha: 16}\n"
        ),
        encoding="utf-8",
    )
    for folder in ("models", "metrics"):
        shutil.copytree(f"{folder}/tiny", f"{folder}/twin")
    with serve_command("--compare", "twin") as (_, address):
        rows = predicted()
        for name in ("tiny", "twin"):
            body = {"queries": [{"query": row.origin_query, "candidates": [row.candidate]} for row in rows.itertuples()], "model": name}
            results = httpx.post(f"{address}/v1/score", json=body, timeout=60).json()["results"]
            assert [result["answers"][0]["p_relevant"] for result in results] == pytest.approx(rows["probability"].tolist(), abs=1e-5)
        before = httpx.get(f"{address}/v1/info").json()["models"]
        assert [model["name"] for model in before] == ["tiny", "twin"]
        other_adapter()
        settings = Path("models/twin/qc/adapter_config.json")
        settings.write_text(json.dumps({**json.loads(settings.read_text()), "lora_alpha": 1}), encoding="utf-8")
        refused = httpx.post(f"{address}/v1/reload", timeout=60)
        assert (refused.status_code, "models/twin/qc has other settings" in refused.json()["message"]) == (409, True)
        assert httpx.get(f"{address}/v1/info").json()["models"] == before  # neither was replaced
