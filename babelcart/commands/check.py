"""Check every setting in params.yaml.

Each stage checks its own sections when it starts. This command checks all sections at once, before anything is computed.
"""

from __future__ import annotations

from babelcart.commands import cli
from babelcart.core import config


@cli.command
def main() -> None:
    from babelcart import attack, submit
    from babelcart.core.tasks import Task
    from babelcart.model import loading, prompts, scoring
    from babelcart.negatives import sampling
    from babelcart.rows import readers, splits
    from babelcart.scores import metrics
    from babelcart.training import loop
    from babelcart.translation import augment

    data = config.load("data", readers.Data)
    for task in config.load("tasks", tuple[Task, ...]):
        data.files(task)
        config.load(f"prompts.{task}", prompts.Prompt)
    config.load("prepare", readers.Prepare)
    config.load("split", splits.Split)
    config.load("translate", augment.Translate)
    config.load("negatives", sampling.NegativesSettings)
    config.load("train", loop.TrainSettings)
    config.load("predict", scoring.Predict)
    config.load("evaluate", metrics.Evaluate)
    config.load("attack", attack.AttackSettings)
    config.load("submit", submit.Submit)
    for name in config.load("models", dict[str, loading.ModelSettings]):
        cli.model_name(name)
    for name in config.load("run", tuple[str, ...]):
        cli.model_name(name)
        config.load(f"models.{name}", loading.ModelSettings)
