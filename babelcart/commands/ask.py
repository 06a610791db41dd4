"""Ask a trained model whether candidates answer a query.

The output is a line for each candidate with the decision and p(relevant), notes on texts that are unlike the training rows, and the
threshold.

Example: babelcart ask --task qc --model gemma3-270m "abendkleid lang" "women's clothing,dresses"
"""

from __future__ import annotations

import click

from babelcart.commands import cli, options
from babelcart.core.errors import UserError, printable
from babelcart.domain import NOTES
from babelcart.scores.formatting import format_probability
from babelcart.scores.metrics import ANSWERS


@cli.command
@click.argument("query")
@click.argument("candidates", nargs=-1, required=True, metavar="CANDIDATES...")
@cli.task
@cli.model
@click.option(
    "--language",
    callback=options.language,
    help="Language of the query, such as de. Required if the prompt or a threshold depends on it.",
)
@click.option("--threshold", type=click.FloatRange(0, 1), help="Threshold of the decision, in place of that of `evaluate`.")
def main(query: str, candidates: tuple[str, ...], task: str, model: str, language: str | None, threshold: float | None) -> None:
    from babelcart.model.prompts import RowTexts
    from babelcart.model.scoring import score
    from babelcart.scorer import load_scorer

    for name, text in (("query", query), *(("candidate", candidate) for candidate in candidates)):
        if not text.strip():
            raise UserError(f"the {name} is empty; expected a text")
    scorer = load_scorer(model, task, threshold)
    code = language or ""
    if not code and scorer.needs_language:
        raise UserError(
            f"the prompt or a threshold of {task} depends on the language of the query; state it, for example with --language de"
        )
    rows = [RowTexts(code, query, candidate) for candidate in candidates]
    probability = score(scorer.model, scorer.tokenizer.encode_many(rows), scorer.tokenizer.labels, scorer.settings)
    bound = scorer.threshold(code)
    width = max(map(len, ANSWERS.values()))
    for row, p, notes in zip(rows, probability.tolist(), scorer.notes(rows), strict=True):
        click.echo(f"{ANSWERS[int(p >= bound)]:{width}}  p(relevant) {format_probability(p)}  {printable(row.candidate)}")
        for note in notes:
            click.echo(f"{'':{width}}  {NOTES[note]}")
    click.echo(f"threshold {format_probability(bound)}; {model}, revision {scorer.revision}")
