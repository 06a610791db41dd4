"""Feed every reader with inputs that are nearly right, or not at all, and count what becomes of them.

    python -m tests.support.fuzz --inputs 100000
    python -m tests.support.fuzz --reader memory.tmx --inputs 20000 --seed 7
    python -m tests.support.fuzz --reader memory.tmx --atheris --inputs 200000     # guided by coverage: pip install 'babelcart[fuzz]'

An input is accepted, or refused with a message; anything else is a failure: another exception, a crash, more than ten seconds of
processor time, too much memory, an output that is left half-written or although the input was refused. Failing inputs are kept in
`--keep`. Prints a Markdown table and ends with 1 if there was a failure. An input depends on the seed, the reader and its number alone.
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

SECONDS = 10
ASLEEP = 300
# What may be written to; the address space is not bounded, since the engine that draws charts reserves much of it.
MEMORY = 8 << 30
ACCEPTED, REFUSED, FAILED = range(3)


def prepare(folder: Path) -> dict[str, int]:
    """Make the project that the readers read; the readers and their shares. In a process of its own: torch stays out of this one."""
    from tests.support import readers

    folder.mkdir()
    readers.make_project(folder)
    os.chdir(folder)
    return {reader.name: reader.share for reader in readers.build(folder)}


def work(folder: Path, wanted: dict[str, int], seed: int, counts: dict[str, Any], seconds: Any, ready: Any, keep: Path) -> None:
    """Feed the readers with what they still lack; `counts` and `seconds` survive a crash."""
    from tests.support import readers

    with Path(os.devnull).open("w") as nowhere:  # libraries warn of what they are given
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    os.chdir(folder)
    found = {reader.name: reader for reader in readers.build(folder)}
    ready.value = 1
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    for place, (name, inputs) in enumerate(wanted.items()):
        reader, counted, before = found[name], counts[name], time.monotonic()
        for number in range(sum(counted), inputs):
            content = reader.input(seed, number)
            (folder / "last").write_bytes(content)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # unhandled, it ends the process, whatever that is busy with
            try:
                counted[ACCEPTED if reader.outcome(content) == "accepted" else REFUSED] += 1
            except Exception:
                counted[FAILED] += 1
                save(keep, name, number, content, traceback.format_exc())
            signal.setitimer(signal.ITIMER_PROF, 0)
        seconds[place] += time.monotonic() - before


def save(keep: Path, name: str, number: int, content: bytes, reason: str) -> None:
    """Keep a failing input and what it led to."""
    keep.mkdir(parents=True, exist_ok=True)
    path = keep / f"{name.replace('/', '_').replace(' ', '_')}-{number}"
    path.write_bytes(content)
    path.with_name(f"{path.name}.why").write_text(reason, encoding="utf-8", errors="backslashreplace")


def feed(folder: Path, wanted: dict[str, int], seed: int, keep: Path) -> tuple[dict[str, list[int]], list[float]]:
    """Feed the readers, in a process that is started again after a crash: what became of the inputs of each, and how long it took."""
    context = multiprocessing.get_context("spawn")
    counts: dict[str, Any] = {name: context.Array("q", 3, lock=False) for name in wanted}
    seconds, ready = context.Array("d", len(wanted), lock=False), context.Value("b", 0, lock=False)

    def done() -> int:
        return sum(sum(counted) for counted in counts.values())

    total = sum(wanted.values())
    with tqdm(total=total, unit="input", disable=None, mininterval=1) as bar:
        while done() < total:
            process = context.Process(target=work, args=(folder, wanted, seed, counts, seconds, ready, keep))
            process.start()
            since, ready.value = time.monotonic(), 0
            while process.is_alive():
                process.join(0.2)
                current = next((name for name, inputs in wanted.items() if sum(counts[name]) < inputs), "")
                bar.set_description(current)
                if done() > bar.n:
                    bar.update(done() - bar.n)
                    since = time.monotonic()
                elif time.monotonic() - since > ASLEEP:  # the timer counts processor time
                    process.kill()
            bar.update(done() - bar.n)
            if process.exitcode:
                how = signal.Signals(-process.exitcode).name if process.exitcode < 0 else f"exit code {process.exitcode}"
                if not ready.value:
                    raise click.ClickException(f"the readers do not start: {how}")
                current = next(name for name, inputs in wanted.items() if sum(counts[name]) < inputs)
                reason = f"{how} (SIGPROF: too much processor time; SIGKILL: no end in {ASLEEP} seconds)\n"
                save(keep, current, sum(counts[current]), (folder / "last").read_bytes(), reason)
                counts[current][FAILED] += 1
    return {name: list(counted) for name, counted in counts.items()}, list(seconds)


def guided(folder: Path, name: str, inputs: int) -> None:
    """Let atheris look for inputs of one reader that reach new code; it prints and ends the process itself."""
    import atheris

    os.chdir(folder)
    with atheris.instrument_imports(include=["babelcart"]):
        from tests.support import readers

        reader = next(one for one in readers.build(folder) if one.name == name)
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(reader.seeds):
        (corpus / str(number)).write_bytes(content)
    atheris.Setup([sys.argv[0], f"-runs={inputs}", f"-timeout={SECONDS}", str(corpus)], lambda content: reader.outcome(content) and None)
    atheris.Fuzz()


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.option("--inputs", default=100_000, show_default=True, help="Of all readers, by their shares; of one, if --reader names it.")
@click.option("--reader", "chosen", help="Only this one.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--keep", type=click.Path(path_type=Path), default=Path(".scratch/fuzz"), show_default=True, help="Folder for failing inputs."
)
@click.option("--atheris", "by_coverage", is_flag=True, help="Guided by coverage; one reader, and torch's code is not looked at.")
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
            raise click.BadParameter(f"no reader {chosen!r}; there are {', '.join(shares)}")
        if by_coverage:
            if chosen is None:
                raise click.UsageError("--atheris needs --reader")
            guided(folder, chosen, inputs)
        shares = {one: share for one, share in shares.items() if chosen in (None, one)}
        wanted = {one: max(1, inputs * share // sum(shares.values())) for one, share in shares.items()}
        wanted[next(iter(wanted))] += max(0, inputs - sum(wanted.values()))  # what rounding left, to a quick one
        counts, seconds = feed(folder, wanted, seed, keep)
    lines = ["| reader | inputs | accepted | refused | failed | seconds |", "|---|---|---|---|---|---|"]
    totals = [sum(kind) for kind in zip(*counts.values(), strict=True)]
    for (one, counted), took in zip([*counts.items(), ("**all**", totals)], [*seconds, time.monotonic() - started], strict=True):
        lines.append(f"| {one} | {sum(counted):,} | {' | '.join(f'{number:,}' for number in counted)} | {took:.0f} |")
    click.echo("\n".join(lines))
    if totals[FAILED]:
        raise click.ClickException(f"{totals[FAILED]} failures; the inputs are in {keep}")


if __name__ == "__main__":
    main()
