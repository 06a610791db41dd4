"""The section ``translate`` of params.yaml."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from babelcart.core.config import bounded
from babelcart.core.errors import did_you_mean
from babelcart.rows import languages
from babelcart.translation.engines import LOCAL_MODEL, EngineSettings
from babelcart.translation.network import RateLimits
from babelcart.weights.wheels import check_local


@dataclass(frozen=True)
class Expansion:
    """The rows of a task that are translated, and the languages that they are translated into."""

    # Empty for all languages.
    source_languages: tuple[str, ...] = ()
    # null for the languages of dev (or of test, if dev is empty) that train lacks.
    target_languages: tuple[str, ...] | None = None
    # null for the mean number of rows of a native language.
    rows_per_language: int | None = bounded(0, 2**53, default=None)
    candidates: Literal["keep", "translate"] = "keep"

    def __post_init__(self) -> None:
        object.__setattr__(self, "source_languages", languages.codes(self.source_languages, "source_languages"))
        if self.target_languages is not None:
            object.__setattr__(self, "target_languages", languages.codes(self.target_languages, "target_languages"))


@dataclass(frozen=True)
class TranslateSettings:
    """Settings of the stage ``translate``."""

    SECTION: ClassVar[str] = "translate"

    memory: str
    qc: Expansion = field(default_factory=Expansion)
    qi: Expansion = field(default_factory=Expansion)
    pivot: str | None = None
    # Names of blocks under engines, tried in this order for texts that the memory lacks.
    chain: tuple[str, ...] = ()
    engines: dict[str, EngineSettings] = field(default_factory=dict)
    # Model folder of an engine that downloads none; a file, or null, if no engine of the chain needs it.
    local_model: str | None = None
    allow_network: bool = False
    network: RateLimits = field(default_factory=RateLimits)
    # Equal answers that a network engine must give before one is accepted; 2 for a server that may mix up requests.
    agree: int = bounded(1, 3, default=1)
    # Target language -> lowest cosine similarity of a text and its translation by an engine, with the encoder of the section negatives.
    min_similarity: dict[str, float] = field(default_factory=dict)
    # Minimum share of the chosen rows of each language that must be translated.
    min_coverage: float = bounded(0, 1, default=0.0)
    seed: int = bounded(0, 2**63 - 1, default=0)

    def __post_init__(self) -> None:
        for name, limit in self.min_similarity.items():
            if not -1 <= limit <= 1:
                raise ValueError(f"min_similarity.{name} is {limit}; accepted: -1 to 1")
        by_code = {languages.code(name, "min_similarity"): limit for name, limit in self.min_similarity.items()}
        if len(by_code) != len(self.min_similarity):
            raise ValueError(f"min_similarity names a language twice: {', '.join(self.min_similarity)}")
        object.__setattr__(self, "min_similarity", by_code)
        if self.pivot is not None:
            object.__setattr__(self, "pivot", languages.code(self.pivot, "pivot"))
        for name in self.chain:
            if name not in self.engines:
                names = ", ".join(self.engines) or "none"
                hint = did_you_mean(name, self.engines)
                raise ValueError(f"chain names the engine {name!r}; accepted: the blocks under engines: {names}{hint}")
            if self.engines[name].local:
                source = "packages" if self.engines[name].kind == "neural" else "repo and revision"
                check_local(LOCAL_MODEL, self.local_model, f"{name} of chain", f"translate.engines.{name}: {source}")
