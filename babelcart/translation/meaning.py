"""Compare the meanings of a text and its translation with a sentence encoder: finds translations that belong to another text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.core import config
from babelcart.core.errors import UserError
from babelcart.embedding.encoders import EncoderSettings, build_encoder, embed_texts
from babelcart.embedding.search import no_progress

if TYPE_CHECKING:
    from babelcart.embedding.encoders import TextEncoder

# Source languages with which the limits of `translate.min_similarity` were measured (benchmarks/meaning.py).
SOURCES = frozenset({"en", "es", "fr", "ja", "ko", "pt"})


class MeaningCheck:
    """Cosine similarity of texts and translations.

    A server that mixes up requests returns the translation of another text, which all checks of `babelcart.translation.gate` can pass.

    Parameters
    ----------
    make_encoder : callable
        Returns the encoder; called when the first pair is checked.
    min_similarity : mapping
        Target language -> lowest cosine similarity of a translation. Other target languages, and source languages that are not in
        `SOURCES`, are not checked.
    store : Path
        Cache of vectors (`babelcart.embedding.encoders.embed_texts`).
    progress : callable
        Called as ``progress(iterable, total=..., desc=...)``, such as tqdm.
    """

    def __init__(
        self,
        make_encoder: Callable[[], TextEncoder],
        min_similarity: Mapping[str, float],
        store: Path,
        progress: Callable[..., Iterable[Any]] = no_progress,
    ) -> None:
        self._make_encoder, self._min_similarity, self._store, self._progress = make_encoder, min_similarity, store, progress
        self._encoder: TextEncoder | None = None

    @classmethod
    def from_settings(
        cls, min_similarity: Mapping[str, float], scratch: Path, progress: Callable[..., Iterable[Any]] = no_progress
    ) -> MeaningCheck | None:
        """Return the check with the encoder of ``negatives.encoder`` in params.yaml; None if no language is to be checked.

        Raises
        ------
        UserError
            If the encoder is another than that with which the limits were measured.
        """
        if not min_similarity:
            return None
        settings = config.load("negatives.encoder", EncoderSettings)
        if settings.kind != "use-multilingual":
            raise UserError(
                f"translate.min_similarity was measured with the encoder use-multilingual, and negatives.encoder is {settings.kind}; set "
                "translate.min_similarity to {}, or measure limits for your encoder with benchmarks/meaning.py"
            )
        return cls(lambda: build_encoder(settings, scratch, lambda: ()), min_similarity, scratch / "vectors.sqlite", progress)

    def differs(self, source: str, target: str, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Return whether each translation has another meaning than its text.

        Parameters
        ----------
        source, target : str
            Languages.
        pairs : sequence of (str, str)
            Texts and their translations.

        Returns
        -------
        list of bool
            All False if the encoder does not know the languages.
        """
        limit = self._min_similarity.get(target)
        if limit is None or source not in SOURCES or not pairs:
            return [False] * len(pairs)
        self._encoder = self._encoder or self._make_encoder()
        distinct, vectors = embed_texts(
            (text for pair in pairs for text in pair), self._encoder, self._store, progress=self._progress
        )  # (texts, dimensions)
        index = {text: position for position, text in enumerate(distinct)}
        return [float(vectors[index[text]] @ vectors[index[translation]]) < limit for text, translation in pairs]
