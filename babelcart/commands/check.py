"""Check every setting in params.yaml.

Each stage checks its own sections when it starts. This command checks all sections at once, before anything is computed.
"""

from __future__ import annotations

from babelcart import config
from babelcart.commands import cli


@cli.command
def main() -> None:
    from babelcart import attacks, metrics, models, negatives, prompts, rows, scoring, splits, submission, training, translation
    from babelcart.tasks import Task

    data = config.load("data", rows.Data)
    for task in config.load("tasks", tuple[Task, ...]):
        data.files(task)
        config.load(f"prompts.{task}", prompts.Prompt)
    config.load("prepare", rows.Prepare)
    config.load("split", splits.Split)
    config.load("translate", translation.Translate)
    config.load("negatives", negatives.Negatives)
    config.load("train", training.Train)
    config.load("predict", scoring.Predict)
    config.load("evaluate", metrics.Evaluate)
    config.load("attack", attacks.Attack)
    config.load("submit", submission.Submit)
    for name in config.load("models", dict[str, models.Model]):
        cli.model_name(name)
    for name in config.load("run", tuple[str, ...]):
        cli.model_name(name)
        config.load(f"models.{name}", models.Model)
