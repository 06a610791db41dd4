"""The server: real HTTP on loopback, with the clients of other servers, concurrent requests, changed adapters and slow clients."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cohere
import httpx
import pandas as pd
import pytest
from cohere.core.request_options import RequestOptions

from babelcart.model.packing import TokenRow
from babelcart.model.prompts import RowTexts
from babelcart.scorer import Scorer, load_scorer
from babelcart.serving import app, engine, guard
from tests.support.project import Graph, Project, run, run_to
from tests.support.serving import ADAPTER, KEY, other_adapter, predicted, serve, serve_command


@pytest.fixture
def trained(project: Project) -> Project:
    """A project with a trained model, whose probabilities differ between rows."""
    project.change(train={"learning_rate": 0.01})
    run_to("evaluate")
    return project


@pytest.fixture
def scorer(trained: Project) -> Scorer:
    return load_scorer("tiny", "qc")


def started(scorer: Scorer, pack_tokens: int, max_rows: int, candidates: Sequence[str] = ()) -> engine.Engine:
    """Return an engine that answers with a scorer."""
    queue = engine.Engine(lambda: [engine.ServedModel(scorer.name, scorer, scorer.candidate_prefixes(candidates))], pack_tokens, max_rows)
    queue.start()
    return queue


@pytest.fixture
def address(scorer: Scorer) -> Iterator[str]:
    with serve(
        app.build_app(started(scorer, 256, 10_000), guard.Limits(), reload=lambda: scorer.use_adapter(scorer.read_adapter()))
    ) as served:
        yield served


def queries(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{"query": row.origin_query, "candidates": [row.candidate], "language": row.language} for row in rows.itertuples()]


def answers(response: httpx.Response) -> list[float]:
    assert response.status_code == 200, response.text
    return [answer["p_relevant"] for result in response.json()["results"] for answer in result["answers"]]


def test_concurrent_requests_get_the_probabilities_of_predict(address: str) -> None:
    rows = predicted()
    with ThreadPoolExecutor(10) as pool:
        responses = list(pool.map(lambda query: httpx.post(f"{address}/v1/score", json={"queries": [query]}), queries(rows)))
    assert [p for response in responses for p in answers(response)] == pytest.approx(rows["probability"].tolist(), abs=1e-5)
    threshold = json.loads(Path("metrics/tiny/qc.json").read_text())["validation"]["threshold"]
    for response, p in zip(responses, rows["probability"], strict=True):
        (result,) = response.json()["results"]
        assert (result["threshold"], result["answers"][0]["relevant"]) == (threshold, p >= threshold)
    metrics = httpx.get(f"{address}/metrics").text
    assert f"babelcart_pairs_total {len(rows):.1f}" in metrics
    assert f'babelcart_requests_total{{path="/v1/score",status="200"}} {len(rows):.1f}' in metrics


def test_an_exact_request_gets_the_bytes_of_predict(address: str) -> None:
    rows = predicted()
    assert answers(httpx.post(f"{address}/v1/score", json={"queries": queries(rows), "exact": True})) == rows["probability"].tolist()


def test_one_query_with_its_candidates(address: str) -> None:
    body = {"query": "led lamp", "candidates": ["toys,balls", "led " * 300], "language": "ja"}
    response = httpx.post(f"{address}/v1/score", json=body).json()
    assert [answer["notes"] for answer in response["results"][0]["answers"]] == [
        ["language_not_trained", "candidate_not_trained"],
        ["language_not_trained", "candidate_not_trained", "candidate_truncated"],
    ]
    assert (response["task"], response["model"]) == ("qc", "tiny")


def test_the_clients_of_cohere_work(scorer: Scorer) -> None:
    rows = predicted().head(4)
    query, documents = rows["origin_query"][0], rows["candidate"].tolist()
    limits = guard.Limits(candidates=5)
    with serve(app.build_app(started(scorer, 256, 10_000), limits, KEY)) as address:
        answered = httpx.post(
            f"{address}/v1/score", json={"query": query, "candidates": documents}, headers={"Authorization": f"Bearer {KEY}"}
        )
        expected = sorted(((-p, index) for index, p in enumerate(answers(answered))))
        options = RequestOptions(max_retries=0)
        for client in (cohere.ClientV2(KEY, base_url=address), cohere.Client(KEY, base_url=address)):
            reranked = client.rerank(model="any", query=query, documents=documents, top_n=3, request_options=options)
            assert [result.index for result in reranked.results] == [index for _, index in expected[:3]]
            scores = [result.relevance_score for result in reranked.results]
            assert scores == pytest.approx([-p for p, _ in expected[:3]], abs=1e-5)
            with pytest.raises(cohere.errors.UnprocessableEntityError) as refused:
                client.rerank(model="any", query=query, documents=[], request_options=options)
            assert refused.value.body["message"].startswith("documents: List should have at least 1 item")
            with pytest.raises(cohere.core.api_error.ApiError) as too_many:
                client.rerank(model="any", query=query, documents=documents * 2, request_options=options)
            assert (too_many.value.status_code, too_many.value.body["message"]) == (
                413, "the request has 8 candidates; accepted: at most 5"
            )  # fmt: skip
        stranger = cohere.ClientV2("wrong", base_url=address)
        with pytest.raises(cohere.errors.UnauthorizedError) as unknown:
            stranger.rerank(model="any", query=query, documents=documents, request_options=options)
        assert "the key is missing or wrong" in unknown.value.body["message"]
        assert httpx.get(f"{address}/readyz").status_code == 200
        assert httpx.get(f"{address}/metrics").status_code == 401


def test_the_request_of_jina_works(address: str) -> None:
    documents = ["toys,balls", {"text": "home & garden,watering,hoses"}]
    body = {"model": "jina-reranker-v2", "query": "garden hose", "documents": documents, "top_n": 2, "return_documents": True}
    response = httpx.post(f"{address}/v1/rerank", json=body).json()
    texts = ["toys,balls", "home & garden,watering,hoses"]
    assert [result["document"]["text"] for result in response["results"]] == [texts[result["index"]] for result in response["results"]]
    assert response["usage"]["total_tokens"] > 0
    assert "query" in httpx.post(f"{address}/v1/rerank", json={"documents": documents}).json()["detail"]


def test_the_request_of_vllm_works_with_texts_and_with_tokens(address: str, scorer: Scorer) -> None:
    row = predicted().iloc[0]
    labels = scorer.tokenizer.labels
    body = {"query": row["origin_query"], "items": [row["candidate"]], "label_token_ids": [labels.positive, labels.negative]}
    by_text = httpx.post(f"{address}/generative_scoring", json=body).json()
    assert by_text["data"] == [{"index": 0, "object": "score", "score": pytest.approx(row["probability"], abs=1e-5)}]
    tokens = list(scorer.tokenizer.encode("", row["origin_query"], row["candidate"]).tokens)
    for split, item_first in ((4, False), (4, True)):
        parts = (tokens[split:], tokens[:split]) if item_first else (tokens[:split], tokens[split:])
        body = {"query": parts[0], "items": [parts[1]], "item_first": item_first}
        by_tokens = httpx.post(f"{address}/generative_scoring", json=body).json()
        assert by_tokens["data"][0]["score"] == pytest.approx(row["probability"], abs=1e-5)
    refused = httpx.post(f"{address}/generative_scoring", json={**body, "label_token_ids": [labels.negative, labels.positive]})
    assert f"accepted: [{labels.positive}, {labels.negative}]" in refused.json()["error"]["message"]
    assert httpx.post(f"{address}/generative_scoring", json={"query": [1], "items": [[10**9]]}).status_code == 422


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 422, "JSON decode error"),
        (b"[]", 422, "dictionary"),
        (b'{"query": "a", "candidates": []}', 422, "candidates: List should have at least 1 item"),
        (b'{"query": "", "candidates": ["b"]}', 422, "query: String should have at least 1 character"),
        (b'{"query": "a", "candidates": ["b"], "language": "xx"}', 422, "language: 'xx' is not a language"),
        (b'{"query": "a", "candidates": ["b"], "queries": []}', 422, "queries"),
        (b'{"query": "a"}', 422, "expected either query and candidates, or queries"),
        (b'{"query": "a", "candidates": ["b"], "model": "x"}', 422, "model is 'x'; accepted: tiny"),
        (b'{"query": "a", "candidates": ["b"], "top_n": 1}', 422, "top_n: Extra inputs are not permitted"),
        (b'{"query": "a", "candidates": ["\\ud800"]}', 422, ""),
        (b'{"query": "\xff", "candidates": ["b"]}', 400, "the body is not UTF-8 text"),
        (b'{"query": "a", "candidates": ["' + b"b" * 5000 + b'"]}', 422, "at most 4000 characters"),
        (b'{"query": "a", "candidates": [' + b", ".join([b'"b"'] * 1001) + b"]}", 413, "the request has 1,001 candidates"),
        (b" " * (1 << 20) + b"{}", 413, "the body is larger than"),
    ],
)
def test_a_bad_request_is_refused_with_a_message(address: str, body: bytes, status: int, message: str) -> None:
    response = httpx.post(f"{address}/v1/score", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status, response.text
    assert message in response.json()["message"]
    assert answers(httpx.post(f"{address}/v1/score", json={"query": "a", "candidates": ["b"]}))


HOSTILE = ["<script>alert(1)</script>", "<eos><bos>", "../../etc/passwd", "\x00\x1b]0;x\x07", "{query}{candidate}", "= 1+1", "‮", "🧨" * 50]


def test_hostile_texts_are_scored_as_text(address: str) -> None:
    for text in HOSTILE:
        response = httpx.post(f"{address}/v1/score", json={"query": text, "candidates": [text, "b"]})
        assert len(answers(response)) == 2
        assert response.headers["content-type"] == "application/json"
    assert httpx.get(f"{address}/../../params.yaml").status_code == 404


def held(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let the computation of packs wait for the event that is returned."""
    release, compute = threading.Event(), scorer.chunk_probability

    def waiting(rows: list[TokenRow], cache: Any) -> Any:
        release.wait(30)
        return compute(rows, cache)

    monkeypatch.setattr(scorer, "chunk_probability", waiting)
    return release


def test_a_full_queue_refuses_requests_and_late_answers_are_given_up(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    release = held(scorer, monkeypatch)
    queue = started(scorer, 8, 3)
    with serve(app.build_app(queue, guard.Limits(seconds=0.5))) as address:
        late = httpx.post(f"{address}/v1/score", json={"query": "a", "candidates": ["b", "c", "d"]})
        assert (late.status_code, late.json()["message"][:29]) == (504, "not answered within 0.5 secon")
        body = {"query": "a", "candidates": ["b", "c"]}
        with ThreadPoolExecutor(2) as pool:
            statuses = sorted(
                response.status_code for response in pool.map(lambda _: httpx.post(f"{address}/v1/score", json=body), range(2))
            )
        assert statuses == [429, 504]
        full = [queue.submit(queue.models[0], scorer.tokenizer.encode_many([RowTexts("", "a", "b")] * 3))]
        refused = httpx.post(f"{address}/v1/score", json=body)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        release.set()
        assert len(full[0].result(30).probability) == 3
        assert answers(httpx.post(f"{address}/v1/score", json=body))


def test_a_small_request_does_not_wait_for_a_large_one(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    release = held(scorer, monkeypatch)
    queue = started(scorer, 64, 10_000)
    done: list[str] = []

    def finished(name: str, _: object) -> None:
        done.append(name)

    for name, count in (("large", 300), ("small", 2), ("exact", 2)):
        rows = scorer.tokenizer.encode_many([RowTexts("", f"{name} {number}", "shoes") for number in range(count)])
        queue.submit(queue.models[0], rows, exact=name == "exact").add_done_callback(partial(finished, name))
    release.set()
    queue.stop()
    assert done == ["small", "exact", "large"]
    with pytest.raises(engine.Stopping):
        queue.submit(queue.models[0], [rows[0]])


def test_requests_are_answered_in_their_order(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    release = held(scorer, monkeypatch)
    queue = started(scorer, 64, 10_000)  # fewer tokens than requests
    done: list[int] = []

    def finished(number: int, _: object) -> None:
        done.append(number)

    for number in range(100):
        rows = scorer.tokenizer.encode_many([RowTexts("", f"query {number}", f"shoes {candidate}") for candidate in range(3)])
        queue.submit(queue.models[0], rows).add_done_callback(partial(finished, number))
    release.set()
    queue.stop()
    assert sorted(done) == list(range(100))
    assert all(abs(place - number) < 40 for place, number in enumerate(done))


@pytest.mark.parametrize("header", [{"Host": "shop.example"}, {"Origin": "https://shop.example"}, {"Origin": "null"}])
def test_pages_of_other_hosts_are_refused_without_a_key(address: str, header: dict[str, str]) -> None:
    response = httpx.post(f"{address}/v1/reload", headers=header)
    assert (response.status_code, "only programs of this machine" in response.json()["message"]) == (403, True)
    assert answers(httpx.post(f"{address}/v1/score", json={"query": "a", "candidates": ["b"]}, headers={"Origin": address}))


@pytest.mark.parametrize("hosts", [("shop.example", "localhost"), ("localhost", "shop.example")])
def test_each_of_several_host_headers_must_name_this_machine(address: str, hosts: tuple[str, str]) -> None:
    server, port = address.removeprefix("http://").split(":")
    with socket.create_connection((server, int(port)), 30) as client:  # the clients of HTTP send one
        client.sendall("GET /readyz HTTP/1.1\r\nHost: {}\r\nHost: {}\r\n\r\n".format(*hosts).encode())
        assert client.recv(100).startswith((b"HTTP/1.1 403", b"HTTP/1.1 400"))


def test_an_error_of_a_pack_is_that_of_its_requests_only(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = scorer.chunk_probability
    failing = True

    def chunk(rows: list[TokenRow], cache: Any) -> Any:
        if failing:
            raise RuntimeError("a defect")
        return compute(rows, cache)

    monkeypatch.setattr(scorer, "chunk_probability", chunk)
    with serve(app.build_app(started(scorer, 64, 100), guard.Limits())) as address:
        failed = httpx.post(f"{address}/v1/score", json={"query": "a", "candidates": ["b"]})
        assert (failed.status_code, failed.json()["message"]) == (500, "the rows could not be computed (RuntimeError)")
        failing = False
        assert answers(httpx.post(f"{address}/v1/score", json={"query": "a", "candidates": ["b"]}))


def test_the_adapter_is_changed_without_a_lost_request(address: str, scorer: Scorer) -> None:
    rows = predicted().head(6)
    body = {"queries": queries(rows) * 10}
    expected = {scorer.revision: rows["probability"].tolist() * 10}
    stop = threading.Event()

    def ask() -> list[httpx.Response]:
        responses = []
        while not stop.is_set():
            responses.append(httpx.post(f"{address}/v1/score", json=body, timeout=60))
        return responses

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        other_adapter()
        reloaded = httpx.post(f"{address}/v1/reload", timeout=60)
        answers(httpx.post(f"{address}/v1/score", json=body, timeout=60))
        stop.set()
    run("predict", "--task", "qc", "--model", "tiny")
    expected[reloaded.json()["revision"]] = predicted().head(6)["probability"].tolist() * 10
    assert len(expected) == 2
    responses = [response for future in asking for response in future.result()]
    for response in responses:
        assert answers(response) == pytest.approx(expected[response.json()["revision"]], abs=1e-5)
    assert {response.json()["revision"] for response in responses} <= set(expected)


def test_an_adapter_of_another_shape_is_refused(address: str, scorer: Scorer) -> None:
    config = Path("models/tiny/qc/adapter_config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), "lora_alpha": 1}), encoding="utf-8")
    response = httpx.post(f"{address}/v1/reload")
    assert (response.status_code, "start the server again" in response.json()["message"]) == (409, True)
    assert httpx.get(f"{address}/readyz").json()["revision"] == scorer.revision


def test_the_rows_of_a_client_that_disconnects_are_dropped(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    release = held(scorer, monkeypatch)
    queue = started(scorer, 8, 1000)
    with serve(app.build_app(queue, guard.Limits())) as address:
        body = {"query": "a", "candidates": [f"b {number}" for number in range(200)]}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{address}/v1/score", json=body, timeout=0.5)
        deadline = time.monotonic() + 30
        while queue.waiting_rows and time.monotonic() < deadline:
            time.sleep(0.01)
        assert queue.waiting_rows == 0
        release.set()
        assert answers(httpx.post(f"{address}/v1/score", json={"query": "a", "candidates": ["b"]}))
        assert 'babelcart_requests_total{path="/v1/score",status="499"} 1.0' in httpx.get(f"{address}/metrics").text


def test_disconnections_at_every_moment_are_counted_and_not_logged(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    release = held(scorer, monkeypatch)
    with serve(app.build_app(started(scorer, 8, 1000), guard.Limits())) as address:
        host, port = address.removeprefix("http://").split(":")
        body = json.dumps({"query": "a", "candidates": ["b"]})
        request = f"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        for content in (request[:-5], request, request + request):
            with socket.create_connection((host, int(port))) as client:
                client.sendall(content)
                time.sleep(0.1)
        release.set()
        deadline, closed = time.monotonic() + 30, 0.0
        while closed < 3 and time.monotonic() < deadline:
            closed = sum(float(line.split()[-1]) for line in httpx.get(f"{address}/metrics").text.splitlines() if 'status="499"' in line)
        assert closed >= 3
        assert capsys.readouterr().err == ""


def test_a_client_that_hangs_is_given_up_and_disturbs_nobody(scorer: Scorer) -> None:
    with serve(app.build_app(started(scorer, 64, 100), guard.Limits(body_seconds=0.3))) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as hanging:
            hanging.sendall(b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
            assert answers(httpx.post(f"{address}/v1/score", json={"query": "a", "candidates": ["b"]}))
            hanging.settimeout(30)
            with hanging.makefile("rb") as stream:
                answer = stream.read()  # until the server closes the connection
        assert answer.startswith(b"HTTP/1.1 408")


def test_the_categories_of_a_shop_are_computed_once(scorer: Scorer) -> None:
    rows = predicted()
    queue = started(scorer, 256, 10_000, sorted(set(rows["candidate"])))
    assert len(queue.models[0].cache.tree) > len(set(rows["candidate"]))
    with serve(app.build_app(queue, guard.Limits())) as address:
        response = httpx.post(f"{address}/v1/score", json={"queries": queries(rows)})
        assert answers(response) == pytest.approx(rows["probability"].tolist(), abs=1e-5)


def test_signals_load_another_adapter_and_stop_the_command(trained: Project) -> None:
    with serve_command() as (process, address):
        while httpx.get(f"{address}/readyz").status_code != 200:
            pass
        before = httpx.get(f"{address}/readyz").json()["revision"]
        other_adapter()
        process.send_signal(signal.SIGHUP)
        assert process.stderr
        line = process.stderr.readline()
        assert "loaded" in line
        assert httpx.get(f"{address}/readyz").json()["revision"] != before
        assert answers(httpx.post(f"{address}/v1/score", json={"query": "a secret query", "candidates": ["b"]}))
        process.send_signal(signal.SIGTERM)
        status = process.wait(30)
        assert status in (0, -signal.SIGTERM)
        assert "secret" not in process.stderr.read()


@pytest.mark.parametrize("host", ["127.0.0.2", "::1"])
def test_all_addresses_of_the_loopback_interface_are_served_without_a_key(trained: Project, host: str) -> None:
    with serve_command("--host", host) as (_, address):
        assert address.startswith("http://[::1]:" if host == "::1" else "http://127.0.0.2:")
        assert answers(httpx.post(f"{address}/v1/score", json={"query": "a", "candidates": ["b"]}, timeout=60))


def test_other_machines_need_a_key(trained: Project) -> None:
    output = run("serve", "--task", "qc", "--model", "tiny", "--host", "0.0.0.0", fails=True).output
    assert "set BABELCART_API_KEY to a secret key" in output


@pytest.mark.parametrize("key", ["clé", "two words", " "])
def test_a_key_that_clients_cannot_send_is_refused(trained: Project, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("BABELCART_API_KEY", key)
    output = run("serve", "--task", "qc", "--model", "tiny", fails=True).output
    assert "BABELCART_API_KEY contains a space or a character that is not ASCII" in output


@pytest.mark.parametrize(("scheme", "status"), [("Bearer", 200), ("bearer", 200), ("Basic", 401), ("", 401)])
def test_the_name_of_the_scheme_of_the_key_has_any_case(scorer: Scorer, scheme: str, status: int) -> None:
    with serve(app.build_app(started(scorer, 64, 100), guard.Limits(), KEY)) as address:
        assert httpx.get(f"{address}/metrics", headers={"Authorization": f"{scheme} {KEY}".strip()}).status_code == status


def test_a_model_that_is_missing_is_reported(trained: Project) -> None:
    ADAPTER.unlink()
    output = run("serve", "--task", "qc", "--model", "tiny", "--port", "0", fails=True).output
    assert "models/tiny/qc holds no weights" in output


def test_the_adapter_of_another_revision_is_served(project: Project) -> None:
    project.change(train={"learning_rate": 0.01})
    graph = Graph(project, real=True)
    graph("dvc", "repro", "evaluate@qc-tiny")
    graph.commit("trained")
    expected = predicted()
    other_adapter()
    with serve_command("--rev", "HEAD") as (process, address):
        process.send_signal(signal.SIGHUP)
        response = httpx.post(f"{address}/v1/score", json={"queries": queries(expected)})
        assert answers(response) == pytest.approx(expected["probability"].tolist(), abs=1e-5)
        assert httpx.post(f"{address}/v1/reload").status_code == 409
