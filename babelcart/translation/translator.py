"""Find the translations of texts: in the memory first, then from the engines of the chain. Each must pass the quality gate."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from babelcart.core.errors import UserError, short_repr
from babelcart.rows.text import collapse_spaces, normalise
from babelcart.translation import gate, notices
from babelcart.translation.engines import Engine
from babelcart.translation.meaning import MeaningCheck
from babelcart.translation.memory_files import Entry
from babelcart.translation.network import EngineUnavailable, Failure, RequestPool, TemporaryFailure, TextRefused
from babelcart.translation.privacy import personal_data
from babelcart.translation.settings import TranslateSettings
from babelcart.translation.translation_memory import EngineDirection, Memory

Direction = tuple[str, str]  # source and target language, ISO 639-1

# Reasons for which the answer of a server is removed from the memory, so that the text is sent again in the next run: an overloaded server
# returns the text itself, and one that mixes up requests returns the translation of another text.
RETRIED = ("identical", "meaning")


class Answer(NamedTuple):
    """A translation that passed the quality gate, and the engine that made it."""

    translation: str
    engine: str


class Refusal(NamedTuple):
    """The reason why a text has no translation.

    ``missing`` (no source has one), ``private``, ``too long``, ``empty``, ``contradictory``, ``same answer`` (as for other texts),
    ``meaning`` (another meaning than the text; see `babelcart.translation.meaning`), a reason of the gate
    (`babelcart.translation.gate.REASONS`), or the error of an engine.
    """

    reason: str


@dataclass(frozen=True)
class Source:
    """Entries of one engine and version in the memory, and the engine for texts that the memory lacks, if any."""

    name: str
    version: str
    engine: Engine | None = None


@dataclass
class EngineResults:
    """Translations and refusals of one engine; the keys are texts in normal form."""

    translations: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, Refusal] = field(default_factory=dict)


class Translator:
    """Translate texts with the memory and the engines of a chain.

    Parameters
    ----------
    memory : Memory
        Answers of engines are added as they arrive.
    sources : sequence of Source
        In order of preference.
    settings : TranslateSettings
    shared_words : collection of str
        Words that several languages share, such as brands (see `gate.check_many`).
    progress : callable
        ``progress(iterable, total=..., desc=...)``, such as tqdm.
    meaning : MeaningCheck, optional
        Refuses translations of engines that have another meaning than the text.

    Attributes
    ----------
    used : set of Entry
        The entries behind all answers of this translator.
    answer_counts : Counter
        Number of answers that each engine gave in this run, right or wrong.
    unavailable : dict
        Name of an engine -> error, for engines that failed and are not asked again in this run.
    """

    def __init__(
        self, memory: Memory, sources: Sequence[Source], settings: TranslateSettings, shared_words: Collection[str] = (),
        progress: Callable[..., Iterable[Any]] = lambda iterable, total, desc: iterable, meaning: MeaningCheck | None = None,
    ) -> None:  # fmt: skip
        self.meaning = meaning
        self.memory, self.sources, self.settings, self.shared_words, self.progress = memory, sources, settings, shared_words, progress
        self.used: set[Entry] = set()
        self.answer_counts: Counter[str] = Counter()
        self.unavailable: dict[str, str] = {}
        self._failures: Counter[str] = Counter()  # consecutive failures of each engine, over all directions

    def translate(self, direction: Direction, texts: Iterable[str]) -> dict[str, Answer | Refusal]:
        """Translate distinct texts.

        Parameters
        ----------
        direction : tuple of str
            Source and target language.
        texts : iterable of str
            Texts with the same normal form (`babelcart.rows.text.normalise`) are translated once.

        Returns
        -------
        dict
            Text in normal form -> its translation, or the reason why it has none.
        """
        originals: dict[str, str] = {}  # normal form -> the text as written
        for text in sorted(set(texts)):
            originals.setdefault(normalise(text), text)
        answers: dict[str, Answer] = {}
        refusals = dict.fromkeys(originals, Refusal("missing"))
        for source in self.sources:
            pending = {key: text for key, text in originals.items() if key not in answers}
            candidates = self._candidates(source, direction, pending)
            refusals |= candidates.refusals
            pairs = [(originals[key], translation) for key, translation in candidates.translations.items()]
            verdicts = gate.check_many(*direction, pairs, self.shared_words, self._other_languages)
            other_meanings = self._other_meanings(source, direction, candidates.translations, originals)
            for (key, translation), reason in zip(candidates.translations.items(), verdicts, strict=True):
                if reason is None and key in other_meanings:
                    refusals[key] = Refusal("meaning")
                elif reason is None:
                    answers[key] = Answer(translation, source.name)
                    self.used.add(Entry(source.name, source.version, *direction, key, translation))
                else:
                    refusals[key] = Refusal(reason)
            if source.engine is not None and source.engine.network:
                retried = [key for key in candidates.translations if key not in answers and refusals[key].reason in RETRIED]
                self.memory.remove(EngineDirection(source.name, source.version, *direction), retried)
        return {key: answers.get(key, refusals[key]) for key in originals}

    def _candidates(self, source: Source, direction: Direction, pending: Mapping[str, str]) -> EngineResults:
        """Return the translations of one source, from the memory and then from its engine, before they are checked by the gate."""
        memory_key = EngineDirection(source.name, source.version, *direction)
        known = self.memory.look_up(memory_key, list(pending))
        engine = source.engine
        if engine is None:
            return EngineResults(known)
        stored_notices = [key for key, answer in known.items() if notices.notice(key, answer)]
        self.memory.remove(memory_key, stored_notices)  # by a version that did not recognise them, or by a shared file
        known = {key: answer for key, answer in known.items() if key not in set(stored_notices)}
        missing = {key: text for key, text in pending.items() if key not in known}
        new = EngineResults()
        if (
            missing
            and engine.name not in self.unavailable
            and engine.supports(*direction)
            and (self.settings.allow_network or not engine.network)
        ):
            accepted, refusals = _sendable(engine, missing)
            ask = self._ask_network if engine.network else self._run_locally
            new = ask(engine, direction, accepted, known)
            new.refusals |= refusals
        return self._without_same_answers(memory_key, EngineResults(known | new.translations, new.refusals))

    def _without_same_answers(self, memory_key: EngineDirection, results: EngineResults) -> EngineResults:
        """Refuse the answers that an engine gave for several clearly different texts, and remove them from the memory."""
        same_answers = notices.SameAnswers()
        for key, answer in sorted(results.translations.items()):
            same_answers.add(key, answer)
        suspicious = [key for key, answer in results.translations.items() if same_answers.is_suspicious(key, answer)]
        self.memory.remove(memory_key, suspicious)
        translations = {key: answer for key, answer in results.translations.items() if key not in set(suspicious)}
        return EngineResults(translations, results.refusals | dict.fromkeys(suspicious, Refusal("same answer")))

    def _other_meanings(
        self, source: Source, direction: Direction, translations: Mapping[str, str], originals: Mapping[str, str]
    ) -> set[str]:
        """Return the texts, in normal form, whose translation by an engine has another meaning. Translations that are given are trusted."""
        if source.engine is None or self.meaning is None:
            return set()
        differs = self.meaning.differs(*direction, [(originals[key], translation) for key, translation in translations.items()])
        return {key for key, is_other in zip(translations, differs, strict=True) if is_other}

    def _other_languages(self, target: str, texts: Sequence[str]) -> set[str]:
        """Do the same as `gate.other_languages`, with verdicts cached in the memory."""
        verdicts = self.memory.language_verdicts(target, texts)
        unknown = [text for text in texts if text not in verdicts]
        if unknown:
            in_other_language = gate.other_languages(target, unknown)
            new_verdicts = {text: text in in_other_language for text in unknown}
            self.memory.add_language_verdicts(target, new_verdicts)
            verdicts |= new_verdicts
        return {text for text, is_other in verdicts.items() if is_other}

    def _ask_network(self, engine: Engine, direction: Direction, texts: Mapping[str, str], known: Mapping[str, str]) -> EngineResults:
        """Ask an engine on the network. Answers are stored as unconfirmed when they arrive, and as entries once confirmed."""
        memory_key = EngineDirection(engine.name, engine.version, *direction)
        interrupted = self.memory.unconfirmed(memory_key)
        first_answers = {key: interrupted[key] for key in texts if key in interrupted and not notices.notice(key, interrupted[key])}
        refusals: dict[str, Refusal] = {}
        new_texts = {key: text for key, text in texts.items() if key not in first_answers}
        same_answers = notices.SameAnswers(self.settings.network.max_failures)
        for key, answer in {**known, **first_answers}.items():
            same_answers.add(key, answer)
        for key, response in self._request(engine, direction, new_texts, f"{engine.name} {'-'.join(direction)}"):
            if isinstance(response, Refusal):
                refusals[key] = response
            else:
                first_answers[key] = response
                self.memory.add([Entry(*memory_key, key, response)], unconfirmed=True)
                text_count = same_answers.add(key, response)
                if text_count >= max(notices.SUSPICIOUS_TEXTS, self.settings.network.max_failures):
                    self.unavailable[engine.name] = f"stopped: {text_count} different texts have the answer {short_repr(response)}"
                    break
        if engine.name in self.unavailable:  # no answer can be confirmed by asking again
            suspicious = {key for key, answer in first_answers.items() if same_answers.is_suspicious(key, answer)}
            refusals |= dict.fromkeys(suspicious, Refusal("same answer"))
            self.memory.confirm(memory_key, {}, suspicious)
            first_answers = {key: answer for key, answer in first_answers.items() if key not in suspicious}
        refusals |= {key: Refusal("stopped: same answer") for key in new_texts.keys() - first_answers.keys() - refusals.keys()}
        confirmation = self._confirm(engine, direction, {key: texts[key] for key in first_answers}, first_answers, known)
        self.memory.confirm(memory_key, confirmation.translations, list(first_answers))
        return EngineResults(confirmation.translations, refusals | confirmation.refusals)

    def _confirm(
        self, engine: Engine, direction: Direction, texts: Mapping[str, str], first_answers: Mapping[str, str], known: Mapping[str, str]
    ) -> EngineResults:
        """Ask again for doubtful answers, and accept those that the engine repeats.

        A server, proxy or client that mixes up requests returns the answer to another text, so that two texts have the same answer. Such
        an answer must be given twice. Every answer must be given as often as the setting `agree` requires.
        """
        required = self._required_votes(first_answers, known)
        votes = {key: Counter({answer: 1}) for key, answer in first_answers.items()}
        refusals: dict[str, Refusal] = {}
        confirmed: dict[str, str] = {}
        for _ in range(2 * self.settings.agree + 1):
            leaders = {key: counter.most_common(1)[0] for key, counter in votes.items()}
            confirmed = {key: answer for key, (answer, count) in leaders.items() if count >= required[key]}
            in_doubt = {key: texts[key] for key in votes if key not in confirmed}
            answered = False
            for key, response in self._request(engine, direction, in_doubt, f"{engine.name} {'-'.join(direction)} again"):
                if isinstance(response, Refusal):
                    refusals[key] = response
                else:
                    votes[key][response] += 1
                    answered = True
            if not answered:
                break
        refusals |= {key: Refusal("contradictory") for key in votes if key not in confirmed and votes[key].total() > 1}
        return EngineResults(confirmed, refusals)

    def _required_votes(self, first_answers: Mapping[str, str], known: Mapping[str, str]) -> dict[str, int]:
        """Return how often each answer must be given: twice or more if another text has the same answer."""
        texts_by_answer: defaultdict[str, set[str]] = defaultdict(set)
        for key, answer in {**known, **first_answers}.items():
            texts_by_answer[normalise(answer)].add(key)
        return {
            key: max(self.settings.agree, 2 if len(texts_by_answer[normalise(answer)]) > 1 else 1) for key, answer in first_answers.items()
        }

    def _request(
        self, engine: Engine, direction: Direction, texts: Mapping[str, str], description: str
    ) -> Iterator[tuple[str, str | Refusal]]:
        """Send each text in a separate request; yield its key, and its translation or the reason why it has none."""
        if not texts:
            return
        if engine.name in self.unavailable:  # stopped while the first answers arrived
            yield from ((key, Refusal(self.unavailable[engine.name])) for key in texts)
            return
        keys = {text: key for key, text in texts.items()}

        def make_client() -> Callable[[str], str]:
            translate = engine.client(*direction)
            return lambda text: _believable(text, translate([text])[0])

        pool = RequestPool(make_client, list(keys), self.settings.network, self.settings.seed, self._failures[engine.name])
        try:
            for text, response in self.progress(pool.responses(), total=len(keys), desc=description):
                yield keys[text], self._record(engine, response)
        except EngineUnavailable as error:
            self.unavailable[engine.name] = str(error)
            for key in texts:
                yield key, Refusal(str(error))
        finally:
            self._failures[engine.name] = pool.failures

    def _record(self, engine: Engine, response: str | Failure) -> str | Refusal:
        """Count a response of an engine; return the translation on one line, or the reason why there is none."""
        if isinstance(response, Failure):
            if response.stopped:
                self.unavailable[engine.name] = response.reason
            return Refusal(response.reason)
        self.answer_counts[engine.name] += 1
        return collapse_spaces(response)

    def _run_locally(self, engine: Engine, direction: Direction, texts: Mapping[str, str], known: Mapping[str, str]) -> EngineResults:
        """Translate with an engine on this machine, in batches of texts of similar length."""
        results = EngineResults()
        if not texts:
            return results
        ordered = sorted(texts, key=lambda key: (len(texts[key]), key))
        batches = [ordered[start : start + engine.batch_size] for start in range(0, len(ordered), engine.batch_size)]
        translate = engine.client(*direction)
        for batch in self.progress(batches, total=len(batches), desc=f"{engine.name} {'-'.join(direction)}"):
            answers = translate([texts[key] for key in batch])
            if len(answers) != len(batch):
                raise UserError(
                    f"translate.engines.{engine.name} returned {len(answers)} translations of {len(batch)} texts, so that it is unknown "
                    "which translation belongs to which text; remove it from translate.chain, or correct the engine"
                )
            new = dict(zip(batch, map(collapse_spaces, answers), strict=True))
            results.refusals |= {key: Refusal("notice") for key, answer in new.items() if notices.notice(texts[key], answer)}
            new = {key: answer for key, answer in new.items() if key not in results.refusals}
            self.memory.add([Entry(engine.name, engine.version, *direction, key, answer) for key, answer in new.items()])
            self.answer_counts[engine.name] += len(answers)
            results.translations |= new
        return results


def _believable(text: str, answer: str) -> str:
    """Return the answer of a server, or raise an exception if it is empty or a notice."""
    if not answer.strip():
        raise TextRefused("empty")
    if notices.is_too_long(text, answer):
        raise TextRefused("too long")
    if words := notices.notice(text, answer):
        raise TemporaryFailure(f"notice ({words})")
    return answer


def _sendable(engine: Engine, texts: Mapping[str, str]) -> tuple[dict[str, str], dict[str, Refusal]]:
    """Separate the texts that an engine may get from those that are refused: too long, or private."""
    accepted: dict[str, str] = {}
    refusals: dict[str, Refusal] = {}
    for key, text in texts.items():
        if len(text) > engine.max_characters:
            refusals[key] = Refusal("too long")
        elif engine.network and (kind := personal_data(text)):
            refusals[key] = Refusal(f"private ({kind})")
        else:
            accepted[key] = text
    return accepted, refusals
