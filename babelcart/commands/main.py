"""The command `babelcart`: a group whose subcommands are imported when they are called."""

from __future__ import annotations

import importlib

import click

from babelcart import __version__

# Heading -> subcommand -> first line of its help. The module of a subcommand has its name; `babelcart --help` imports none of them.
COMMANDS = {
    "Before a run": {
        "inspect": "Find out what files are, and propose the settings that read them.",
        "check": "Check every setting in params.yaml, and the raw data.",
        "plan": "Estimate rows, tokens, steps, memory and minutes of training and scoring.",
    },
    "Use": {
        "score": "Score the rows of files with a trained model.",
        "serve": "Answer HTTP requests with a trained model.",
        "ask": "Ask a trained model whether candidates answer a query.",
    },
    "Results": {
        "results": "Print the scores in metrics/ as a Markdown table.",
        "compare": "Compare the predictions of two revisions row by row.",
        "experiments": "Run the pipeline under several settings and compare the scores.",
        "export": "Export an adapter or a merged model to a folder for serving.",
    },
    "Sharing": {
        "pull": "Pull outputs from the DVC remote and verify them.",
        "verify": "Verify the cache, the workspace, the remote and the repository.",
        "publish": "Publish an adapter or a merged model on the Hugging Face hub.",
        "memory": "List, import, export and delete entries of the translation memory.",
    },
    "Maintenance": {
        "current": "Fail if dvc.lock is out of date.",
        "heal": "Repair DVC's files after a crash or disk failure.",
        "deps": "Write the code that each stage depends on into dvc.yaml.",
    },
}


class LazyGroup(click.Group):
    """A group that imports a subcommand's module only to run it or to print its help."""

    def list_commands(self, context: click.Context) -> list[str]:
        return [name for commands in COMMANDS.values() for name in commands]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(context):
            return None
        command: click.Command = importlib.import_module(f"babelcart.commands.{name}").main
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.list_commands(context)))
        for heading, commands in COMMANDS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), text) for name, text in commands.items()])


@click.group(cls=LazyGroup, context_settings={"max_content_width": 120})
@click.version_option(__version__)
def main() -> None:
    """Tools for the Babelcart pipeline.

    Run them in the top folder of the project. `dvc repro` runs the stages of the pipeline themselves.
    """
