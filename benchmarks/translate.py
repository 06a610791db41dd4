"""Compare translation over the network to deep-translator's own `translate_batch`; then measure the stage with a full memory.

    python benchmarks/translate.py

A LibreTranslate server on loopback takes 50 ms for each request. It receives 2,000 texts, half of which are distinct. Both sides use
deep-translator's LibreTranslator. They run one after the other in one process, three times; the ratio is that of their wall times.

Then the complete stage `translate` runs in its own process, on rows whose translations are all in the memory.
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
from babelcart.translation import engines, memory_files, network, translation_memory  # noqa: E402
from babelcart.translation.settings import TranslateSettings  # noqa: E402
from babelcart.translation.translator import Answer, Source, Translator  # noqa: E402
from tests.support.libre_server import TEXTS as WORDS  # noqa: E402
from tests.support.libre_server import german, running  # noqa: E402

TEXTS = [f"{WORDS[n % 200]} {n % 1000}" for n in range(2000)]
ROWS_PER_QUERY = 4


def babelcart_seconds(url: str, concurrency: int) -> float:
    """Time to translate `TEXTS` with Babelcart and an empty memory."""
    limits = network.RateLimits(concurrency=concurrency, per_second=0)
    block = engines.EngineSettings(kind="libre", base_url=url)
    settings = TranslateSettings(memory="", chain=("l",), engines={"l": block}, allow_network=True, network=limits)
    engine = engines.build("l", block, Path(), 20.0)
    with tempfile.TemporaryDirectory() as folder, translation_memory.Memory(Path(folder) / "m.sqlite") as store:
        translator = Translator(store, [Source("l", engine.version, engine)], settings)
        start = time.perf_counter()
        answers = translator.translate(("en", "de"), TEXTS)
        seconds = time.perf_counter() - start
    assert all(isinstance(answer, Answer) and answer.translation == german(text) for text, answer in answers.items())
    return seconds


def batch_seconds(url: str, texts: list[str]) -> float:
    """Time to translate `texts` with `translate_batch`."""
    import deep_translator.libre
    import requests
    from deep_translator import LibreTranslator

    deep_translator.libre.requests = requests  # the original library, without Babelcart's transport
    translator = LibreTranslator(source="en", target="de", api_key="none", custom_url=url + "/")
    start = time.perf_counter()
    translations = translator.translate_batch(texts)
    seconds = time.perf_counter() - start
    assert translations == [german(text) for text in texts]
    return seconds


def write_project(folder: Path, rows: int) -> None:
    """Write a project whose train part has `rows` English rows, `ROWS_PER_QUERY` to a query, and a memory with all German translations."""
    shutil.copytree(ROOT / "stages", folder / "stages")
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["translate"]["qc"]["target_languages"] = ["de"]
    params["translate"]["qc"]["rows_per_language"] = rows
    (folder / "data").mkdir()
    with (folder / "params.yaml").open("w") as handle:
        yaml.dump(params, handle)
    # The last query is that of validation, which must not be empty.
    queries = [f"garden hose number {chr(97 + n % 26)}{chr(97 + n // 26 % 26)} {n}" for n in range(rows // ROWS_PER_QUERY + 1)]
    repeated = [query for query in queries for _ in range(ROWS_PER_QUERY)]
    table = pd.DataFrame(
        {
            "id": [str(n) for n in range(len(repeated))], "task": "qc", "language": "en", "language_tag": "en",
            "origin_query": repeated, "candidate": "home & garden,watering,hoses",
            "label": pd.array([n % 2 for n in range(len(repeated))], dtype="Int8"), "group": repeated,
        }
    )  # fmt: skip
    parts = {
        "train": table.iloc[:-ROWS_PER_QUERY],
        "validation": table.iloc[-ROWS_PER_QUERY:],
        "dev": table.iloc[:0],
        "test": table.iloc[:0],
    }
    for name, part in parts.items():
        path = folder / f"build/split/qc/{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        part.to_parquet(path)
    entries = [
        memory_files.Entry("given", "", "en", "de", query, query.replace("garden hose number", "gartenschlauch nummer"))
        for query in queries
    ]
    memory_files.write_csv(folder / "data/memory.csv", entries)


def stage(rows: int) -> tuple[float, float]:
    """Return the seconds and peak GiB of the stage on `rows` rows, all translations in the memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_project(folder, rows)
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


def compare_speed(rounds: int) -> None:
    """Print the time of both sides in each round, and the median ratio."""
    ratios = []
    with running(delay=0.05) as server:
        for _ in range(rounds):
            ours, theirs = babelcart_seconds(server.url, 32), batch_seconds(server.url, TEXTS)
            ratios.append(theirs / ours)
            click.echo(f"2,000 texts: Babelcart {ours:.2f} s at concurrency 32; translate_batch {theirs:.1f} s; {theirs / ours:.0f}x")
    click.echo(f"median ratio {statistics.median(ratios):.0f}")


def obey_rate_limit() -> None:
    """Print the rate at a server that allows 100 requests a second, and the requests that it rejects."""
    with running(delay=0.05, per_second=100) as server:
        limits = network.RateLimits(concurrency=32, per_second=95)
        start = time.perf_counter()
        block = engines.EngineSettings(kind="libre", base_url=server.url)
        client = engines.build("l", block, Path(), 20.0).client("en", "de")
        answers = list(network.RequestPool(lambda: lambda text: client([text])[0], TEXTS[:500], limits).responses())
        seconds = time.perf_counter() - start
        assert all(isinstance(answer, str) for _, answer in answers)
        rate = len(answers) / seconds
        click.echo(f"server that allows 100 requests/s, per_second 95: {rate:.0f} texts/s, {server.rejected} requests rejected")


@click.command(help=__doc__)
@click.option("--rounds", default=3, show_default=True, help="Number of rounds.")
def main(rounds: int) -> None:
    compare_speed(rounds)
    obey_rate_limit()
    for rows in (200_000, 1_000_000):
        seconds, peak = stage(rows)
        click.echo(f"stage with a full memory, {rows:,} rows: {seconds:.1f} s, peak {peak:.2f} GiB")
    click.echo(f"this process: peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
