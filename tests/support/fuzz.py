"""Fuzz every reader with mutated inputs, and count the accepted, refused and failed ones.

    python -m tests.support.fuzz --inputs 100000
    python -m tests.support.fuzz --reader memory.tmx --inputs 20000 --seed 7
    python -m tests.support.fuzz --reader memory.tmx --atheris --inputs 200000     # guided by coverage: pip install 'babelcart[fuzz]'

An input must be accepted, or refused with a message. Everything else is a failure: another exception, a crash, more than ten seconds of
processor time, too much memory, an incomplete output, or an output although the input was refused. Failing inputs are saved in `--keep`.
The script prints a Markdown table and exits with status 1 after a failure. An input depends only on the seed, the reader and its index.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

SECONDS = 10  # of processor time for one input
HANG_SECONDS = 300  # of wall time without a finished input
# Limit of the data segment. The address space is not limited, because the engine that draws charts reserves much of it.
MEMORY = 8 << 30
ACCEPTED, REFUSED, FAILED = range(3)


def prepare(folder: Path) -> dict[str, int]:
    """Create the project that the readers use; return the share of each reader.

    `main` calls this in a child process, so that it does not import torch itself.
    """
    from tests.support import readers

    folder.mkdir()
    readers.make_project(folder)
    os.chdir(folder)
    return {reader.name: reader.share for reader in readers.build(folder)}


def work(folder: Path, planned: dict[str, int], seed: int, counts: dict[str, Any], seconds: Any, ready: Any, keep: Path) -> None:
    """Give each reader its remaining inputs. `counts` and `seconds` are shared memory and survive a crash of this process."""
    from tests.support import readers

    with Path(os.devnull).open("w") as null_device:  # hides warnings of libraries about the inputs
        os.dup2(null_device.fileno(), 1)
        os.dup2(null_device.fileno(), 2)
    os.chdir(folder)
    all_readers = {reader.name: reader for reader in readers.build(folder)}
    ready.value = 1
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    for reader_index, (name, inputs) in enumerate(planned.items()):
        reader, counted, before = all_readers[name], counts[name], time.monotonic()
        for input_index in range(sum(counted), inputs):
            content = reader.input(seed, input_index)
            (folder / "last").write_bytes(content)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # SIGPROF is not handled, so that it ends the process
            try:
                counted[ACCEPTED if reader.outcome(content) == "accepted" else REFUSED] += 1
            except Exception:
                counted[FAILED] += 1
                save(keep, name, input_index, content, traceback.format_exc())
            signal.setitimer(signal.ITIMER_PROF, 0)
        seconds[reader_index] += time.monotonic() - before


def save(keep: Path, name: str, input_index: int, content: bytes, reason: str) -> None:
    """Save a failing input and the reason."""
    keep.mkdir(parents=True, exist_ok=True)
    path = keep / f"{name.replace('/', '_').replace(' ', '_')}-{input_index}"
    path.write_bytes(content)
    path.with_name(f"{path.name}.why").write_text(reason, encoding="utf-8", errors="backslashreplace")


def feed(folder: Path, planned: dict[str, int], seed: int, keep: Path) -> tuple[dict[str, list[int]], list[float]]:
    """Give all readers their inputs in a child process, which is restarted after a crash; return counts and seconds of each reader."""
    context = multiprocessing.get_context("spawn")
    counts: dict[str, Any] = {name: context.Array("q", 3, lock=False) for name in planned}
    seconds, ready = context.Array("d", len(planned), lock=False), context.Value("b", 0, lock=False)

    def done() -> int:
        return sum(sum(counted) for counted in counts.values())

    total = sum(planned.values())
    with tqdm(total=total, unit="input", disable=None, mininterval=1) as bar:
        while done() < total:
            process = context.Process(target=work, args=(folder, planned, seed, counts, seconds, ready, keep))
            process.start()
            since, ready.value = time.monotonic(), 0
            while process.is_alive():
                process.join(0.2)
                current = next((name for name, inputs in planned.items() if sum(counts[name]) < inputs), "")
                bar.set_description(current)
                if done() > bar.n:
                    bar.update(done() - bar.n)
                    since = time.monotonic()
                elif time.monotonic() - since > HANG_SECONDS:  # a hang without processor time, which the timer does not notice
                    process.kill()
            bar.update(done() - bar.n)
            if process.exitcode:
                how = signal.Signals(-process.exitcode).name if process.exitcode < 0 else f"exit code {process.exitcode}"
                if not ready.value:
                    raise click.ClickException(f"the readers did not start: {how}")
                current = next(name for name, inputs in planned.items() if sum(counts[name]) < inputs)
                reason = (
                    f"{how} (SIGPROF: more than {SECONDS} seconds of processor time; SIGKILL: not finished after {HANG_SECONDS} seconds)\n"
                )
                save(keep, current, sum(counts[current]), (folder / "last").read_bytes(), reason)
                counts[current][FAILED] += 1
    return {name: list(counted) for name, counted in counts.items()}, list(seconds)


def guided(folder: Path, name: str, inputs: int) -> None:
    """Fuzz one reader with atheris, guided by coverage; atheris prints its results and ends the process."""
    import atheris

    os.chdir(folder)
    with atheris.instrument_imports(include=["babelcart"]):
        from tests.support import readers

        reader = next(candidate for candidate in readers.build(folder) if candidate.name == name)
    corpus = folder / "corpus"
    corpus.mkdir()
    for seed_index, content in enumerate(reader.seeds):
        (corpus / str(seed_index)).write_bytes(content)
    atheris.Setup([sys.argv[0], f"-runs={inputs}", f"-timeout={SECONDS}", str(corpus)], lambda content: reader.outcome(content) and None)
    atheris.Fuzz()


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.option("--inputs", default=100_000, show_default=True, help="Number of inputs, divided over the readers by their shares.")
@click.option("--reader", "chosen", help="Fuzz only this reader.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--keep", type=click.Path(path_type=Path), default=Path(".scratch/fuzz"), show_default=True, help="Folder for failing inputs."
)
@click.option("--atheris", "by_coverage", is_flag=True, help="Fuzz the reader of --reader guided by the coverage of babelcart.")
def main(inputs: int, chosen: str | None, seed: int, keep: Path, by_coverage: bool) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    keep = keep.absolute()
    shutil.rmtree(keep, ignore_errors=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "project"
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            shares = pool.apply(prepare, (folder,))
        if chosen is not None and chosen not in shares:
            raise click.BadParameter(f"unknown reader {chosen!r}; accepted: {', '.join(shares)}")
        if by_coverage:
            if chosen is None:
                raise click.UsageError("--atheris needs --reader")
            guided(folder, chosen, inputs)
        shares = {reader: share for reader, share in shares.items() if chosen in (None, reader)}
        planned = {reader: max(1, inputs * share // sum(shares.values())) for reader, share in shares.items()}
        planned[next(iter(planned))] += max(0, inputs - sum(planned.values()))  # the remainder goes to the first reader, which is fast
        counts, seconds = feed(folder, planned, seed, keep)
    lines = ["| reader | inputs | accepted | refused | failed | seconds |", "|---|---|---|---|---|---|"]
    totals = [sum(kind) for kind in zip(*counts.values(), strict=True)]
    for (reader, counted), took in zip([*counts.items(), ("**all**", totals)], [*seconds, time.monotonic() - started], strict=True):
        lines.append(f"| {reader} | {sum(counted):,} | {' | '.join(f'{count:,}' for count in counted)} | {took:.0f} |")
    click.echo("\n".join(lines))
    if totals[FAILED]:
        raise click.ClickException(f"{totals[FAILED]} failures; their inputs are in {keep}")


if __name__ == "__main__":
    main()
