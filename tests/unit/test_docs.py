"""Links, commands, options and paths in the documentation exist."""

from __future__ import annotations

import argparse
import functools
import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.support.imports import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.joinpath("docs").glob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9]*|\.\.\.")
PATH = r"(babelcart|stages|tests|benchmarks|experiments|samples|docs|\.github|\.ci)/[\w./-]*"
PROGRAMS = ("babelcart", "dvc", "make", "pip", "pipx", "python")
EXAMPLE = ROOT / "babelcart/published_example.py"  # the script that an export contains as example.py


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(page: str) -> str:
    """Return a page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page))


def links(page: str) -> list[str]:
    """Targets of the relative links and images of a page, in Markdown and in HTML."""
    text = prose(page)
    found = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    found += re.findall(r"^\[[^\]]+\]:\s*(\S+)", text, re.MULTILINE)
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(page: str) -> set[str]:
    """Anchors that GitHub gives to the headings of a page."""
    found: list[str] = []
    for heading in re.findall(r"^#{1,6} +(.+?)\s*$", FENCE.sub("", page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        found.append(anchor if anchor not in found else f"{anchor}-{found.count(anchor)}")
    return set(found)


def broken_links(path: Path, page: str) -> list[str]:
    broken = []
    for target in links(page):
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        if not file.exists() or (anchor and anchor not in anchors(page if not name else file.read_text(encoding="utf-8"))):
            broken.append(target)
    return broken


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_relative_links_anchors_and_images_exist(path: Path) -> None:
    assert broken_links(path, path.read_text(encoding="utf-8")) == []


def test_a_broken_link_is_found() -> None:
    page = "# A `b` c!\n# A b c\n[a](#a-b-c) [b](#a-b-c-1) [c](#d) ![d](docs/no.png) [e](docs/data.md#none) [f](https://x.test)\n`[g](h)`\n"
    assert broken_links(ROOT / "README.md", page) == ["#d", "docs/no.png", "docs/data.md#none"]


def snippets(page: str) -> Iterator[str]:
    """Lines of the code blocks, without what they print, and inline code."""
    for block in FENCE.findall(page):
        lines = block.replace("\\\n", " ").splitlines()[1:-1]
        prompts = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        yield from prompts or lines
    yield from re.findall(r"`([^`\n]+)`", FENCE.sub("", page))


def commands(snippet: str) -> Iterator[list[str]]:
    """Yield the words of each command of PROGRAMS in a line of shell, without variables in front and the brackets of a synopsis."""
    try:
        words = shlex.split(re.sub(r"[\[\]](?=[\s\-.A-Z]|$)", "", snippet), comments=True)
    except ValueError:
        return
    command: list[str] = []
    for word in [*words, ";"]:
        if word in ("&&", "||", "|", ";", "then", "{", "}"):
            if command and command[0] in PROGRAMS:
                yield command
            command = []
        elif command or not re.match(r"\w+=", word):
            command.append(word if command else word.removeprefix(".venv/bin/"))


def options_of(command: click.Command) -> set[str]:
    return {"--help", *(option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts))}


def unknown_in_click(command: click.Command, words: list[str]) -> list[str]:
    """Subcommands and options among the words that a Click command does not have."""
    for position, word in enumerate(words):
        if isinstance(command, click.Group) and not word.startswith("-"):
            if PLACEHOLDER.fullmatch(word):
                return []
            subcommand = command.get_command(click.Context(command), word)
            return unknown_in_click(subcommand, words[position + 1 :]) if subcommand else [word]
    return [word for word in words if word.startswith("--") and word.partition("=")[0] not in options_of(command)]


@functools.cache
def dvc_parser() -> argparse.ArgumentParser:
    from dvc.cli.parser import get_main_parser

    return get_main_parser()


def unknown_in_argparse(parser: argparse.ArgumentParser, words: list[str]) -> list[str]:
    unknown: list[str] = []
    for position, word in enumerate(words):
        if word.startswith("-"):
            unknown += [word] if word.partition("=")[0] not in parser._option_string_actions else []
        else:
            subparsers = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
            if subparsers and word not in subparsers[0]:
                return [*unknown, word]
            if subparsers:
                return [*unknown, *unknown_in_argparse(subparsers[0][word], words[position + 1 :])]
    return unknown


def unknown_in_make(words: list[str]) -> list[str]:
    variables = [word.partition("=")[0] for word in words if "=" in word]
    unset = [name for name in variables if not re.search(rf"\$\((value )?{name}\)", MAKEFILE)]
    return [word for word in words if "=" not in word and word not in TARGETS] + unset


def unknown_in_python(words: list[str]) -> list[str]:
    if words[:1] == ["-m"]:
        module, *words = words[1:]
        top, _, rest = module.partition(".")
        if module == "babelcart":
            return unknown_in_click(importlib.import_module("babelcart.commands.main").main, words)
        if top not in ("stages", "tests") or PLACEHOLDER.fullmatch(rest):
            return [word for word in words if "/" in word and not (ROOT / word.partition("::")[0]).exists()]
        if not ROOT.joinpath(*module.split(".")).with_suffix(".py").exists():
            return [module]
        return unknown_in_click(importlib.import_module(module).main, words)
    if words and words[0].endswith(".py"):
        script = EXAMPLE if words[0] == "example.py" else ROOT / words[0]
        if not script.exists():
            return [words[0]]
        # A script may need packages that are not installed, so it is read instead of imported.
        source = "".join(path.read_text(encoding="utf-8") for path in {script, ROOT / "benchmarks/sides.py"})
        return [word for word in words if word.startswith("--") and f'"{word}"' not in source]
    return []


def unknown(words: list[str]) -> list[str]:
    """Words of a command that name something that does not exist."""
    program, *arguments = words
    if program == "babelcart":
        return unknown_in_python(["-m", *words])
    if program == "dvc":
        return unknown_in_argparse(dvc_parser(), arguments)
    if program == "make":
        return unknown_in_make(arguments)
    if program == "python":
        return unknown_in_python(arguments)
    named = re.findall(r"(?:babelcart|\.)\[([^\]]*)\]", " ".join(arguments))
    return [extra for names in named for extra in names.split(",") if extra not in EXTRAS]


def unknown_commands(snippet: str) -> list[tuple[str, list[str]]]:
    return [(shlex.join(words), wrong) for words in commands(snippet) if (wrong := unknown(words))]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_commands_and_their_options_exist(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert [wrong for snippet in snippets(page) for wrong in unknown_commands(snippet)] == []


def test_commands_in_the_makefile_exist() -> None:
    recipes = [line.lstrip("\t@") for line in MAKEFILE.replace("\\\n", " ").splitlines() if line.startswith("\t")]
    expanded = [re.sub(r"\$\(addprefix (--\w+) ,\$\(\w+\)\)", r"\1 X", line) for line in recipes]
    plain = [line.replace("$(RUN) ", "").replace("$(BIN)/", "").replace("$(INSTALL)", "dev") for line in expanded]
    found = [command for line in plain for command in commands(line)]
    assert {words[0] for words in found} == {"babelcart", "dvc", "python", "pip"}
    assert {words[1] for words in found if words[0] == "babelcart"} > {"check", "plan", "experiments"}
    assert [wrong for line in plain for wrong in unknown_commands(line)] == []


@pytest.mark.parametrize(
    ("snippet", "wrong"),
    [
        ("make repro && babelcart pull [TARGET ...] [--listings]  # --none", ""),
        ("make repro && make rerpo", "rerpo"),
        ("make plan GPUS=h100", "GPUS"),
        ("babelcart chek", "chek"),
        ("babelcart compare main --tasks qc", "--tasks"),
        ("babelcart memory list --al", "--al"),
        ("babelcart pull [TARGET ...] [--listing]", "--listing"),
        ("python -m stages.predictt --task qc", "stages.predictt"),
        ("python -m stages.predict --tusk qc", "--tusk"),
        ("X=1 python benchmarks/scoring.py --row 1", "--row"),
        ("python -m pytest tests/test_none.py", "tests/test_none.py"),
        ("dvc repro --pul train", "--pul"),
        ("dvc exp drop", "drop"),
        ("pip install 'babelcart[s4]'", "s4"),
    ],
)
def test_a_wrong_command_is_found(snippet: str, wrong: str) -> None:
    assert [name for _, names in unknown_commands(snippet) for name in names] == ([wrong] if wrong else [])


@functools.cache
def all_options() -> set[str]:
    """Options of all commands of this project and of DVC."""
    group = importlib.import_module("babelcart.commands.main").main
    commands = [group.get_command(click.Context(group), name) for name in group.list_commands(click.Context(group))]
    commands += [sub for command in commands if isinstance(command, click.Group) for sub in command.commands.values()]
    scripts = [path.stem for path in ROOT.joinpath("stages").glob("*.py") if path.stem != "__init__"]
    commands += [importlib.import_module(f"stages.{name}").main for name in scripts]
    tools = [path for top in ("benchmarks", "tests/support") for path in ROOT.joinpath(top).glob("*.py")]
    sources = "".join(path.read_text(encoding="utf-8") for path in [*tools, EXAMPLE])
    parsers, options = [dvc_parser()], set(re.findall(r'"(--[\w-]+)', sources)).union(*map(options_of, commands))
    while parsers:
        parser = parsers.pop()
        options |= parser._option_string_actions.keys()
        for action in parser._actions:
            parsers += action.choices.values() if isinstance(action, argparse._SubParsersAction) else []
    return options


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_options_and_paths_in_the_text_exist(path: Path) -> None:
    inline = re.findall(r"`([^`\n]+)`", FENCE.sub("", path.read_text(encoding="utf-8")))
    options = {word.partition("=")[0] for code in inline if code.startswith("--") for word in code.split() if word.startswith("--")}
    assert options - all_options() == set()
    if path.name == "CHANGELOG.md":  # it names what was removed
        return
    paths = {code for code in inline if re.fullmatch(PATH, code) and not re.search(r"[A-Z]{2,}", code)}
    assert {name for name in paths if not (ROOT / name).exists()} == set()
    tests = {path.name for path in ROOT.joinpath("tests").rglob("*.py")}
    assert {code for code in inline if re.fullmatch(r"test_\w+\.py", code)} - tests == set()
