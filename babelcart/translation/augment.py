"""Translation augmentation: labelled rows in the languages that train lacks, and every query in one pivot language.

Texts are looked up in the memory, engine by engine of the chain; what is lacking is asked for, if that is allowed; whatever
comes back must pass the gate. A text without a good translation is left out, with the reason.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from babelcart.core.config import bounded
from babelcart.core.errors import UserError
from babelcart.rows.text import collapse_spaces, fold, normalise, query_key
from babelcart.translation import gate
from babelcart.translation.engines import LOCAL_MODEL, Engine, EngineSettings
from babelcart.translation.network import STOPPED, EngineUnavailable, RateLimits, ask
from babelcart.translation.privacy import personal_data
from babelcart.translation.translation_memory import Entry, Memory
from babelcart.weights.wheels import check_local

if TYPE_CHECKING:
    import pandas as pd

Direction = tuple[str, str]  # source and target language


@dataclass(frozen=True)
class Expansion:
    """Which rows of a task are translated into which languages."""

    # Empty: all.
    source_languages: tuple[str, ...] = ()
    # null: the languages of dev (or test) that train lacks.
    target_languages: tuple[str, ...] | None = None
    # null: as many as a native language has on average.
    rows_per_language: int | None = bounded(0, 2**53, default=None)
    candidates: Literal["keep", "translate"] = "keep"


@dataclass(frozen=True)
class Translate:
    """The section ``translate`` of params.yaml."""

    SECTION: ClassVar[str] = "translate"

    memory: str
    qc: Expansion = field(default_factory=Expansion)
    qi: Expansion = field(default_factory=Expansion)
    pivot: str | None = None
    # Names of blocks under engines, asked in this order for what the memory lacks.
    chain: tuple[str, ...] = ()
    engines: dict[str, EngineSettings] = field(default_factory=dict)
    # Folder of the model of an engine that downloads none; a file, or null, if no engine of the chain needs it.
    local_model: str | None = None
    allow_network: bool = False
    network: RateLimits = field(default_factory=RateLimits)
    # Equal answers that a network engine must give before one is believed (2 for a server that may mix up requests).
    agree: int = bounded(1, 3, default=1)
    # Least share of the chosen rows of each language that must come out translated.
    min_coverage: float = bounded(0, 1, default=0.0)
    seed: int = bounded(0, 2**63 - 1, default=0)

    def __post_init__(self) -> None:
        for name in self.chain:
            if name not in self.engines:
                raise ValueError(f"chain names {name!r}; engines has {', '.join(self.engines) or 'none'}")
            if self.engines[name].local:
                source = "packages" if self.engines[name].kind == "neural" else "repo and revision"
                check_local(LOCAL_MODEL, self.local_model, f"{name} of chain", f"translate.engines.{name}: {source}")


class Answer(NamedTuple):
    """A translation and the engine that made it; or None and the reason."""

    translation: str | None
    engine: str


@dataclass(frozen=True)
class Source:
    """One place to find translations: entries of a memory under a name and version, and the engine to ask for more."""

    name: str
    version: str
    engine: Engine | None = None


class Translator:
    """Finds translations: memory first, then the engines of the chain, each answer through the gate.

    Parameters
    ----------
    memory : Memory
        Read, and written as answers come in.
    sources : sequence of Source
        In order of preference.
    settings : Translate
    known : collection of str
        Words that stand as they are in several languages (`gate.check`).
    progress : callable
        ``progress(iterable, total, description)``, such as tqdm.
    """

    def __init__(
        self, memory: Memory, sources: Sequence[Source], settings: Translate, known: Collection[str] = (),
        progress: Callable[..., Iterable[Any]] = lambda found, total, desc: found,
    ) -> None:  # fmt: skip
        self.memory, self.sources, self.settings, self.known, self.progress = memory, sources, settings, known, progress
        self.used: set[Entry] = set()
        # Answers that each engine gave in this run.
        self.asked: Counter[str] = Counter()
        self.broken: dict[str, str] = {}

    def translate(self, way: Direction, texts: Iterable[str]) -> dict[str, Answer]:
        """Text -> its translation, or None and why: ``missing`` (nothing knows it), ``private``, a reason of the gate or of an engine.

        Each distinct text, in the normal form of `text.normalise`, is looked up and asked once.
        """
        spoken: dict[str, str] = {}
        for text in sorted(set(texts)):
            spoken.setdefault(normalise(text), text)
        found: dict[str, Answer] = {}
        reasons = dict.fromkeys(spoken, "missing")
        for source in self.sources:
            pending = [one for one in spoken if one not in found]
            answers = self.memory.look_up(source.name, source.version, *way, pending)
            if source.engine is not None and len(answers) < len(pending):
                lacking = {one: spoken[one] for one in pending if one not in answers}
                answers |= self._ask(source.engine, way, lacking, answers, reasons)
            pairs = [(spoken[one], translation) for one, translation in answers.items()]
            verdicts = gate.check_many(*way, pairs, self.known, self._identify)
            for (one, translation), reason in zip(answers.items(), verdicts, strict=True):
                if reason is None:
                    found[one] = Answer(translation, source.name)
                    self.used.add(Entry(source.name, source.version, *way, one, translation))
                else:
                    reasons[one] = reason
        return {one: found.get(one, Answer(None, reasons[one])) for one in spoken}

    def _identify(self, target: str, texts: Sequence[str]) -> set[str]:
        """`gate.other_languages`, with what it said before taken from the memory."""
        said = self.memory.identified(target, texts)
        fresh = [text for text in texts if text not in said]
        if fresh:
            other = gate.other_languages(target, fresh)
            self.memory.add_identified(target, {text: text in other for text in fresh})
            said |= {text: text in other for text in fresh}
        return {text for text, is_other in said.items() if is_other}

    def _ask(
        self, engine: Engine, way: Direction, lacking: dict[str, str], had: Mapping[str, str], reasons: dict[str, str]
    ) -> dict[str, str]:
        """Ask one engine; answers go to the memory at once, those in doubt only when the engine has repeated them."""
        if engine.name in self.broken or not engine.supports(*way) or (engine.network and not self.settings.allow_network):
            return {}
        kept_home = {one: reason for one in lacking if engine.network and (reason := personal_data(lacking[one]))}
        reasons |= {one: f"private ({reason})" for one, reason in kept_home.items()}
        reasons |= dict.fromkeys((one for one in lacking if len(lacking[one]) > engine.max_characters), "too long")
        texts = {one: text for one, text in lacking.items() if one not in kept_home and len(text) <= engine.max_characters}
        description = f"{engine.name} {way[0]}-{way[1]}"
        if not engine.network:
            return self._run(engine, way, texts, description)

        doubtful = self.memory.doubtful(engine.name, engine.version, *way)
        first = {one: doubtful[one] for one in texts if one in doubtful}
        for one, answer in self._request(engine, way, {one: text for one, text in texts.items() if one not in first}, description, reasons):
            first[one] = answer
            self.memory.add([Entry(engine.name, engine.version, *way, one, answer)], doubtful=True)
        sure = self._confirm(engine, way, texts, first, had, reasons)
        self.memory.settle(engine.name, engine.version, *way, sure, list(first))
        return sure

    def _confirm(
        self,
        engine: Engine,
        way: Direction,
        texts: Mapping[str, str],
        first: dict[str, str],
        had: Mapping[str, str],
        reasons: dict[str, str],
    ) -> dict[str, str]:
        """The answers that the engine stands by.

        A server, a proxy or a client that mixes up requests gives one text another's answer. Then two texts have the same
        answer, so those are asked again; with `agree` over 1 all are. An answer counts when it came often enough.
        """
        speakers: dict[str, set[str]] = defaultdict(set)
        for one, answer in {**had, **first}.items():
            speakers[normalise(answer)].add(one)
        needed = {one: max(self.settings.agree, 2 if len(speakers[normalise(answer)]) > 1 else 1) for one, answer in first.items()}
        votes = {one: Counter({answer: 1}) for one, answer in first.items()}
        sure: dict[str, str] = {}
        for _ in range(2 * self.settings.agree + 1):
            sure = {one: best for one, vote in votes.items() for best, count in vote.most_common(1) if count >= needed[one]}
            open_ones = {one: texts[one] for one in votes if one not in sure}
            if not open_ones:
                break
            answered = False
            for one, answer in self._request(engine, way, open_ones, f"{engine.name} {way[0]}-{way[1]} again", reasons):
                votes[one][answer] += 1
                answered = True
            if not answered:
                break
        reasons |= {one: "contradictory" for one in votes if one not in sure and sum(votes[one].values()) > 1}
        return sure

    def _request(
        self, engine: Engine, way: Direction, texts: Mapping[str, str], description: str, reasons: dict[str, str]
    ) -> Iterable[tuple[str, str]]:
        asked = {text: one for one, text in texts.items()}

        def client() -> Callable[[str], str]:
            translate = engine.client(*way)
            return lambda text: translate([text])[0]

        try:
            answers = ask(client, list(asked), self.settings.network, self.settings.seed)
            for text, answer, reason in self.progress(answers, total=len(asked), desc=description):
                if answer is not None and answer.strip():
                    self.asked[engine.name] += 1
                    yield asked[text], collapse_spaces(answer)
                else:
                    reasons[asked[text]] = reason or "empty"
                    if reason.startswith(STOPPED):
                        self.broken[engine.name] = reason
        except EngineUnavailable as error:
            self.broken[engine.name] = str(error)
            reasons |= dict.fromkeys(texts, str(error))

    def _run(self, engine: Engine, way: Direction, texts: Mapping[str, str], description: str) -> dict[str, str]:
        """Run an engine of this machine, longest texts last so that a batch is of one length."""
        found: dict[str, str] = {}
        ordered = sorted(texts, key=lambda one: (len(texts[one]), one))
        batches = [ordered[start : start + engine.batch_size] for start in range(0, len(ordered), engine.batch_size)]
        translate = engine.client(*way) if batches else None
        for batch in self.progress(batches, total=len(batches), desc=description):
            assert translate is not None
            answers = dict(zip(batch, map(collapse_spaces, translate([texts[one] for one in batch])), strict=True))
            self.memory.add([Entry(engine.name, engine.version, *way, one, answer) for one, answer in answers.items()])
            self.asked[engine.name] += len(answers)
            found |= answers
        return found


def values(column: pd.Series) -> list[Any]:
    """The values of a column as Python objects; iterating over an Arrow column itself takes ten times as long."""
    return list(column.to_numpy(object))


def shared_words(rows: pd.DataFrame, least: int = 3) -> frozenset[str]:
    """Words of queries in at least `least` languages: brands, "usb", "led"."""
    import re

    languages: dict[str, set[str]] = defaultdict(set)
    queries = rows[["language", "origin_query"]].drop_duplicates()
    for language, query in zip(values(queries["language"]), values(queries["origin_query"]), strict=True):
        for token in re.findall(r"[^\W_]+", normalise(query)):
            languages[token].add(language)
    return frozenset(token for token, found in languages.items() if len(found) >= least)


def choose_rows(rows: pd.DataFrame, targets: Sequence[str], settings: Expansion, seed: int) -> dict[str, pd.DataFrame]:
    """The rows to translate into each target language.

    Whole queries, with all their candidates, until `rows_per_language` (default: as many rows as a native language has
    on average); each source language and, within it, each mix of labels gives its share.

    Returns
    -------
    dict
        Target language -> rows, in the order of `rows`.
    """
    import numpy as np

    sources = rows[rows["language"].isin(settings.source_languages)] if settings.source_languages else rows
    if sources.empty:
        if rows.empty:
            return {}
        raise UserError(f"params.yaml: translate: source_languages is {list(settings.source_languages)}, but train has no such rows")
    wanted = settings.rows_per_language
    if wanted is None:
        wanted = round(len(rows) / rows["language"].nunique())
    queries = sources.groupby(["language", "group"], sort=True)["label"].agg(["mean", "size"]).reset_index()
    chosen: dict[str, pd.DataFrame] = {}
    for target in targets:
        # Another seed for each language: they should not all translate the same queries.
        generator = np.random.default_rng([seed, *target.encode()])
        shuffled = queries.iloc[generator.permutation(len(queries))]
        # Stratified: sorted by stratum, then every k-th query.
        shuffled = shuffled[shuffled["language"] != target].sort_values(["language", "mean"], kind="stable")
        share = min(1.0, wanted / len(sources))
        picked = shuffled[np.floor(np.arange(1, len(shuffled) + 1) * share) > np.floor(np.arange(len(shuffled)) * share)]
        index = set(zip(picked["language"], picked["group"], strict=True))
        mask = [(language, group) in index for language, group in zip(values(sources["language"]), values(sources["group"]), strict=True)]
        chosen[target] = sources[mask]
    return chosen


def translate_rows(
    rows: pd.DataFrame, targets: Sequence[str], settings: Expansion, seed: int, translator: Translator, held_out: Collection[str] = ()
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Translated copies of labelled rows.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of one part of the split, with a ``group`` column.
    targets : sequence of str
        Languages to make.
    held_out : collection of str
        Forms (`text.folded`) of queries that must not come up. A copy that has one of them is left out.

    Returns
    -------
    tuple
        The copies, in their source's group, each with ``source_id``, ``source_language``, ``engine`` and ``origin`` "translated";
        and per target the rows ``asked``, ``translated``, ``held_out``, ``refused`` (by reason), and those of each ``engine``.
    """
    import numpy as np
    import pandas as pd

    made: list[pd.DataFrame] = []
    counts: dict[str, Any] = {}
    for target, chosen in choose_rows(rows, targets, settings, seed).items():
        columns = ["origin_query", "candidate"] if settings.candidates == "translate" else ["origin_query"]
        # Titles and category paths are in English, whatever the language of the query.
        texts = {"origin_query": chosen["language"], "candidate": pd.Series("en", index=chosen.index)}
        copies = chosen.assign(
            source_id=chosen["id"], source_language=chosen["language"], language=target, language_tag=target,
            id=[f"{identifier}-{target}" for identifier in values(chosen["id"])], origin="translated",
        )  # fmt: skip
        refused: Counter[str] = Counter()
        good = pd.Series(True, index=chosen.index)
        for column in columns:
            answers: dict[Direction, dict[str, Answer]] = {}
            for source, texts_of in chosen[column].groupby(texts[column]):
                answers[source, target] = translator.translate((source, target), values(texts_of)) if source != target else {}
            found = [
                answers[source, target].get(normalise(text), Answer(text, "native"))
                for source, text in zip(values(texts[column]), values(chosen[column]), strict=True)
            ]
            refused.update(answer.engine for answer, kept in zip(found, good, strict=True) if kept and answer.translation is None)
            good &= pd.Series([answer.translation is not None for answer in found], index=chosen.index)
            copies[column] = [answer.translation for answer in found]
            if column == "origin_query":
                copies["engine"] = [answer.engine for answer in found]
        copies = copies[good]
        apart = np.array([fold(query) not in held_out for query in values(copies["origin_query"])], dtype=bool)
        counts[target] = {
            "asked": len(chosen), "translated": int(apart.sum()), "held_out": int((~apart).sum()), "refused": dict(sorted(refused.items())),
            "engine": dict(sorted(Counter(copies["engine"]).items())),
        }  # fmt: skip
        made.append(copies[apart])
    result = (
        pd.concat(made, ignore_index=True)
        if made
        else rows.iloc[:0].assign(source_id="", source_language="", engine="", origin="translated")
    )
    return result, counts


def add_pivot(rows: pd.DataFrame, pivot: str | None, translator: Translator) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A column ``pivot``: every query in one language, empty where there is no good translation; and counts by language."""
    if pivot is None or rows.empty:
        return rows.assign(pivot=""), {}
    answers: dict[tuple[str, str], str] = {}
    counts: dict[str, Any] = {}
    for language, queries in rows["origin_query"].groupby(rows["language"]):
        if language == pivot:
            answers |= {query_key(language, query): query for query in queries.unique()}
            continue
        found = translator.translate((language, pivot), queries)
        refused = Counter(answer.engine for answer in found.values() if answer.translation is None)
        counts[language] = {
            "queries": len(found),
            "translated": len(found) - sum(refused.values()),
            "refused": dict(sorted(refused.items())),
        }
        answers |= {(language, one): answer.translation for one, answer in found.items() if answer.translation is not None}
    texts = [
        answers.get(query_key(language, query), "")
        for language, query in zip(values(rows["language"]), values(rows["origin_query"]), strict=True)
    ]
    return rows.assign(pivot=texts), counts


def add_translations(
    parts: Mapping[str, pd.DataFrame], expansion: Expansion, settings: Translate, translator: Translator
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """All that the stage does to the parts of a split: the pivot column everywhere, copies in train and validation.

    Parameters
    ----------
    parts : mapping
        ``train``, ``validation``, ``dev`` and ``test``.

    Returns
    -------
    tuple
        The parts, and counts for metrics/.

    Raises
    ------
    UserError
        If a language falls under `min_coverage`.
    """
    import pandas as pd

    made, counts = dict(parts), dict[str, Any](pivot={})
    for name, rows in parts.items():
        made[name], found = add_pivot(rows, settings.pivot, translator)
        if found:
            counts["pivot"][name] = found
    targets = expansion.target_languages
    if targets is None:
        asked = parts["dev"] if len(parts["dev"]) else parts["test"]
        targets = tuple(sorted(set(asked["language"]) - set(parts["train"]["language"])))
    forms = {name: {fold(query) for query in values(rows["origin_query"])} for name, rows in parts.items()}
    # No copy in train is a query of the other parts, and none in validation a query of train. Validation first: what train is given must
    # not be one of its copies either.
    held_out = {"validation": forms["train"], "train": forms["validation"] | forms["dev"] | forms["test"]}
    for name in ("validation", "train"):
        native = made[name].assign(source_id="", source_language="", engine="native", origin="native")
        copies, counts[name] = translate_rows(native, targets, expansion, settings.seed, translator, held_out[name])
        check_coverage(counts[name], settings.min_coverage, name, translator.broken)
        held_out["train"] |= {fold(query) for query in values(copies["origin_query"])}
        made[name] = pd.concat([native, copies], ignore_index=True).astype(native.dtypes.to_dict())
    return made, counts


def check_coverage(counts: Mapping[str, Mapping[str, Any]], least: float, what: str, broken: Mapping[str, str]) -> None:
    """Refuse a run in which too little was translated.

    Raises
    ------
    UserError
        A table by language: asked, translated, share, reasons.
    """
    poor = {
        language: count for language, count in counts.items()
        if count["asked"] and (count["translated"] + count["held_out"]) / count["asked"] < least
    }  # fmt: skip
    if not poor:
        return
    lines = [
        f"translation of {what}: under translate.min_coverage {least} in {', '.join(poor)}",
        "language  asked  translated  share  refused",
    ]
    for language, count in counts.items():
        share = (count["translated"] + count["held_out"]) / max(1, count["asked"])
        reasons = ", ".join(f"{reason} {number}" for reason, number in count["refused"].items())
        lines.append(f"{language:<8}  {count['asked']:>5}  {count['translated']:>10}  {share:>5.2f}  {reasons}")
    lines += [f"{engine}: {reason}" for engine, reason in broken.items()]
    lines.append("Add translations to translate.memory, add an engine to translate.chain, allow the network, or lower min_coverage.")
    raise UserError("\n".join(lines))
