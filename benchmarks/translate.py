"""Translating over the network, beside deep-translator's own `translate_batch`; then from memory alone.

    python benchmarks/translate.py

A LibreTranslate server on loopback takes 50 ms for each request, 2,000 texts of which half are distinct. Both sides use
deep-translator's LibreTranslator. The ratio is of wall times in one process, one after the other, three times. Then the
whole `translate` stage, as a process, on rows whose translations are all in the memory.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import pandas as pd
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from babelcart.translation import augment, engines, network, translation_memory  # noqa: E402
from tests.support.libre_server import TEXTS as WORDS  # noqa: E402
from tests.support.libre_server import german, running  # noqa: E402

TEXTS = [f"{WORDS[n % 200]} {n % 1000}" for n in range(2000)]


def ours(url: str, concurrency: int) -> float:
    manners = network.RateLimits(concurrency=concurrency, per_second=0)
    block = engines.EngineSettings(kind="libre", base_url=url)
    settings = augment.Translate(memory="", chain=("l",), engines={"l": block}, allow_network=True, network=manners)
    engine = engines.build("l", block, Path(), 20.0)
    with tempfile.TemporaryDirectory() as folder, translation_memory.Memory(Path(folder) / "m.sqlite") as store:
        translator = augment.Translator(store, [augment.Source("l", engine.version, engine)], settings)
        start = time.perf_counter()
        found = translator.translate(("en", "de"), TEXTS)
        seconds = time.perf_counter() - start
        assert [(t, a) for t, a in found.items() if a.translation != german(t)] == []
        return seconds


def theirs(url: str, texts: list[str]) -> float:
    import deep_translator.libre
    import requests
    from deep_translator import LibreTranslator

    deep_translator.libre.requests = requests  # as it comes, without our transport
    translator = LibreTranslator(source="en", target="de", api_key="none", custom_url=url + "/")
    start = time.perf_counter()
    assert translator.translate_batch(texts) == [german(text) for text in texts]
    return time.perf_counter() - start


def stage(rows: int) -> tuple[float, float]:
    """Seconds and peak GiB of the whole stage on `rows` rows, four to a query, all translations given."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "stages", folder / "stages")
        yaml = YAML()
        params = yaml.load(ROOT / "params.yaml")
        params["translate"]["qc"]["target_languages"] = ["de"]
        params["translate"]["qc"]["rows_per_language"] = rows
        (folder / "data").mkdir()
        with (folder / "params.yaml").open("w") as handle:
            yaml.dump(params, handle)
        count = rows // 4
        queries = [f"garden hose number {chr(97 + n % 26)}{chr(97 + n // 26 % 26)} {n}" for n in range(count)]
        table = pd.DataFrame(
            {
                "id": [str(n) for n in range(rows)], "task": "qc", "language": "en", "language_tag": "en",
                "origin_query": [query for query in queries for _ in range(4)], "candidate": "home & garden,watering,hoses",
                "label": pd.array([n % 2 for n in range(rows)], dtype="Int8"), "group": [query for query in queries for _ in range(4)],
            }
        )  # fmt: skip
        for part in ("train", "validation", "dev", "test"):
            path = folder / f"build/split/qc/{part}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            (table if part == "train" else table.iloc[:0]).to_parquet(path)
        given = [
            translation_memory.Entry("given", "", "en", "de", query, query.replace("garden hose number", "gartenschlauch nummer"))
            for query in queries
        ]
        translation_memory.write_csv(folder / "data/memory.csv", given)
        command = [sys.executable, "-m", "stages.translate", "--task", "qc"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)  # fills the store
        start = time.perf_counter()
        pid = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL).pid
        _, status, usage = os.wait4(pid, 0)
        seconds = time.perf_counter() - start
        assert status == 0
        counts = json.loads((folder / "metrics/translate/qc.json").read_text())["train"]["de"]
        assert counts["translated"] == rows, counts
        return seconds, usage.ru_maxrss / 2**20


@click.command(help=__doc__)
@click.option("--rounds", default=3, show_default=True)
def main(rounds: int) -> None:
    with running(delay=0.05) as server:
        ratios = []
        for _ in range(rounds):
            mine = ours(server.url, 32)
            other = theirs(server.url, TEXTS)
            ratios.append(other / mine)
            click.echo(f"2,000 texts: ours {mine:.2f} s at concurrency 32; translate_batch {other:.1f} s; {other / mine:.0f}x")
        click.echo(f"median ratio {statistics.median(ratios):.0f}")
    with running(delay=0.05, per_second=100) as server:
        manners = network.RateLimits(concurrency=32, per_second=95)
        start = time.perf_counter()
        block = engines.EngineSettings(kind="libre", base_url=server.url)
        engine = engines.build("l", block, Path(), 20.0)
        client = engine.client("en", "de")
        answers = list(network.ask(lambda: lambda text: client([text])[0], TEXTS[:500], manners))
        seconds = time.perf_counter() - start
        assert all(answer for _, answer, _ in answers)
        click.echo(f"a server that allows 100 requests/s, per_second 95: {len(answers) / seconds:.0f} texts/s, {server.refused} refused")
    for rows in (200_000, 1_000_000):
        seconds, peak = stage(rows)
        click.echo(f"the stage from memory alone, {rows:,} rows: {seconds:.1f} s, peak {peak:.2f} GiB")
    click.echo(f"this process, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
