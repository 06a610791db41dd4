"""Translation engines behind one small interface: which directions, how long a text, and a client that answers one text.

An engine is a block under ``translate.engines`` of params.yaml, its `kind` one of those of deep-translator, ``neural`` (Firefox
translation models, on this machine), ``seq2seq`` (OPUS-MT, MADLAD-400 ... through transformers) or ``llm``. Keys come
from the environment, under deep-translator's names (DEEPL_API_KEY ...), never from params.yaml.
"""

from __future__ import annotations

import html
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from babelcart.core.config import bounded
from babelcart.core.errors import UNWRITABLE, UserError
from babelcart.core.files import is_safe_path, read_json
from babelcart.translation.network import EngineUnavailable, TemporaryFailure, TextRefused
from babelcart.weights.wheels import Wheel, check_hub, download, extract, local_folder, local_version

# deep-translator's engines: class, longest text that it sends. Left out are linguee, which it asks by the names of languages alone, and
# qcri, which needs a domain.
Scraped = Literal["google", "mymemory", "libre", "deepl", "microsoft", "yandex", "baidu", "papago", "pons", "chatgpt"]
_CLASSES: dict[str, tuple[str, int]] = {
    "google": ("GoogleTranslator", 4999),
    "mymemory": ("MyMemoryTranslator", 499),
    "libre": ("LibreTranslator", 2000),
    "deepl": ("DeeplTranslator", 5000),
    "microsoft": ("MicrosoftTranslator", 5000),
    "yandex": ("YandexTranslator", 5000),
    "baidu": ("BaiduTranslator", 2000),
    "papago": ("PapagoTranslator", 5000),
    "pons": ("PonsTranslator", 49),
    "chatgpt": ("ChatGptTranslator", 5000),
}
# What an engine may call a language, the first that it knows is used.
_CODES = {
    "zh": ("zh-CN", "zh-cn", "zh-Hans", "zh-chs", "zh"), "he": ("he", "iw"), "jv": ("jv", "jw"), "nb": ("nb", "no"), "fil": ("fil", "tl"),
    "pt": ("pt", "pt-PT", "pt-BR"), "en": ("en", "en-GB", "en-US"), "ar": ("ar", "ar-SA", "ara"), "ja": ("ja", "jp"), "ko": ("ko", "kor"),
}  # fmt: skip
ENGLISH = {
    "ar": "Arabic", "de": "German", "en": "English", "es": "Spanish", "fr": "French", "id": "Indonesian", "it": "Italian",
    "ja": "Japanese", "ko": "Korean", "pl": "Polish", "pt": "Portuguese", "th": "Thai", "vi": "Vietnamese",
}  # fmt: skip

# The setting with the folder of a model that no engine downloads; a dependency of the stage.
LOCAL_MODEL = "translate.local_model"


@dataclass(frozen=True)
class NeuralModel:
    """Files of one direction of a neural engine, in its packages or in ``translate.local_model``."""

    model: str
    vocabulary: str
    target_vocabulary: str | None = None


@dataclass(frozen=True)
class EngineSettings:
    """A block under ``translate.engines``."""

    kind: Literal[Scraped, "neural", "seq2seq", "llm"]
    # Entries of a memory are kept apart by it: change it when the engine behind a name changes.
    version: str | None = None
    # libre: the address of your server.
    base_url: str | None = None
    # neural: "en-pt" -> its files, in `packages` or, without any, in translate.local_model.
    packages: tuple[Wheel, ...] = ()
    directions: dict[str, NeuralModel] = field(default_factory=dict)
    # seq2seq, llm: a hub repository, pinned; without one, the model is in translate.local_model.
    repo: str | None = None
    revision: str | None = None
    # seq2seq: put before a text; may use {source} and {target} ("<2{target}> " for MADLAD-400).
    prefix: str = ""
    batch_size: int = bounded(1, 4096, default=32)

    def __post_init__(self) -> None:
        if self.kind == "neural" and not self.directions:
            raise ValueError("a neural engine needs directions: {en-pt: {model: ..., vocabulary: ...}}")
        if self.repo:
            check_hub("repo", self.repo, self.revision, LOCAL_MODEL)
        elif self.revision:
            raise ValueError("revision needs repo, the hub model that it is a commit of")

    @property
    def local(self) -> bool:
        """Whether the engine reads its model from ``translate.local_model``."""
        return {"neural": not self.packages, "seq2seq": not self.repo, "llm": not self.repo}.get(self.kind, False)


class Engine(Protocol):
    """What `babelcart.translation.augment` needs of an engine."""

    name: str
    version: str
    network: bool
    max_characters: int
    batch_size: int

    def supports(self, source: str, target: str) -> bool:
        """Whether the engine translates that way."""

    def client(self, source: str, target: str) -> Callable[[Sequence[str]], list[str]]:
        """A function for one thread that translates up to `batch_size` texts, or raises as `babelcart.translation.network` says."""


def build(name: str, settings: EngineSettings, scratch: Path, timeout: float, local_model: str | None = None) -> Engine:
    """The engine that a block describes; its weights are loaded when it is first used.

    Parameters
    ----------
    local_model : str, optional
        ``translate.local_model``: the folder that is read if the engine is `EngineSettings.local`.

    Raises
    ------
    UserError
        If that folder does not exist, or lacks a file that the settings name.
    """
    if settings.kind in get_args(Scraped):
        return DeepTranslator(name, settings, timeout)
    folder = local_folder(LOCAL_MODEL, local_model) if settings.local else None
    if settings.kind == "neural":
        return Neural(name, settings, scratch, folder)
    return Seq2Seq(name, settings, folder) if settings.kind == "seq2seq" else Prompted(name, settings, folder)


class Transport:
    """What deep-translator's modules see as ``requests``: connections kept, a time-out on each, and failures told apart.

    deep-translator itself sets no time-out, opens a connection for each text and drops Retry-After.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._local = threading.local()

    def __getattr__(self, name: str) -> Any:
        import requests

        return getattr(requests, name)

    def get(self, url: str, **settings: Any) -> Any:
        return self._send("GET", url, settings)

    def post(self, url: str, **settings: Any) -> Any:
        return self._send("POST", url, settings)

    def _send(self, method: str, url: str, settings: dict[str, Any]) -> Any:
        import requests

        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        try:
            response = self._local.session.request(method, url, timeout=self.timeout, **settings)
        except requests.RequestException as error:
            self._local.session.close()  # what comes late on this connection is another text's answer
            del self._local.session
            raise TemporaryFailure(type(error).__name__) from error
        if response.status_code == 429 or response.status_code >= 500:
            raise TemporaryFailure(f"status {response.status_code}", _seconds(response.headers.get("Retry-After")))
        if response.status_code in (401, 403):
            raise EngineUnavailable(f"status {response.status_code}: is the key right, and allowed to do this?")
        return response


def _seconds(value: str | None) -> float | None:
    """Retry-After in seconds: a number or an HTTP date (RFC 9110, section 10.2.3)."""
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        try:
            return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
        except (TypeError, ValueError):
            return None


class DeepTranslator:
    """Any engine of deep-translator, one client a thread."""

    network = True
    batch_size = 1

    def __init__(self, name: str, settings: EngineSettings, timeout: float) -> None:
        import sys

        import deep_translator

        class_name, self.max_characters = _CLASSES[settings.kind]
        self.name, self.settings = name, settings
        self.version = settings.version or f"deep-translator {installed('deep-translator')}"
        self._class: Any = getattr(deep_translator, class_name)
        module = sys.modules[self._class.__module__]
        if hasattr(module, "requests"):
            module.requests = Transport(timeout)  # type: ignore[attr-defined]

    def _arguments(self) -> dict[str, Any]:
        if self.settings.kind == "libre":
            # deep-translator asks for a key even where the server needs none.
            url = {"custom_url": self.settings.base_url.rstrip("/") + "/"} if self.settings.base_url else {}
            return {"api_key": os.environ.get("LIBRE_API_KEY") or "none", **url}
        if self.settings.kind == "papago":
            return {"client_id": os.environ.get("PAPAGO_CLIENT_ID"), "secret_key": os.environ.get("PAPAGO_SECRET_KEY")}
        if self.settings.kind == "microsoft":
            return {"region": os.environ.get("MICROSOFT_REGION")}
        return {}

    def _code(self, language: str) -> str | None:
        import deep_translator.constants as constants

        table = {
            "google": "GOOGLE", "mymemory": "MY_MEMORY", "libre": "LIBRE", "deepl": "DEEPL", "baidu": "BAIDU", "papago": "PAPAGO",
            "pons": "PONS",
        }  # fmt: skip
        prefix = table.get(self.settings.kind)
        known: set[str] = set()
        for name, value in vars(constants).items():
            if prefix and name.startswith(prefix) and isinstance(value, dict) and "LANGUAGE" in name:
                known |= {*value.keys(), *value.values()}
        names = [language, f"{language}-{language.upper()}", *_CODES.get(language, ())]
        if not known:  # microsoft, yandex and chatgpt ask their server, or understand names
            return ENGLISH.get(language) if self.settings.kind == "chatgpt" else names[0]
        found = [name for name in names if name in known] or sorted(code for code in known if code.startswith(f"{language}-"))
        return found[0] if found else None

    def supports(self, source: str, target: str) -> bool:
        return self._code(source) is not None and self._code(target) is not None

    def client(self, source: str, target: str) -> Callable[[Sequence[str]], list[str]]:
        from deep_translator import exceptions

        try:
            translator = self._class(source=self._code(source), target=self._code(target), **self._arguments())
        except (exceptions.ApiKeyException, exceptions.LanguageNotSupportedException) as error:
            raise EngineUnavailable(f"{self.name}: {error}") from error
        except TemporaryFailure:
            raise
        except Exception as error:  # papago raises Exception itself for a missing key
            raise EngineUnavailable(f"{self.name}: {error}") from error

        def translate(texts: Sequence[str]) -> list[str]:
            try:
                answer = translator.translate(texts[0])
            except (TemporaryFailure, EngineUnavailable):
                raise
            except (exceptions.AuthorizationException, exceptions.ApiKeyException) as error:
                raise EngineUnavailable(f"{self.name}: {error}") from error
            except exceptions.TooManyRequests as error:
                raise TemporaryFailure("too many requests") from error
            except (ValueError, KeyError, TypeError, AttributeError) as error:  # an answer that is not what it should be
                raise TemporaryFailure(f"unreadable answer ({type(error).__name__})") from error
            except Exception as error:  # TranslationNotFound and its like: about this text
                raise TextRefused(type(error).__name__) from error
            if isinstance(answer, list) and len(answer) == 1:  # of yandex
                answer = answer[0]
            if not isinstance(answer, str):
                raise TextRefused("no answer")
            answer = html.unescape(answer)
            if UNWRITABLE.search(answer):
                raise TextRefused("characters that are none")
            return [answer]

        return translate


class Neural:
    """Firefox translation models (Marian, quantised), on this machine, through `fxtranslate`."""

    network = False
    max_characters = 500
    batch_size = 16

    def __init__(self, name: str, settings: EngineSettings, scratch: Path, folder: Path | None) -> None:
        self.name, self.settings, self._scratch, self._folder = name, settings, scratch, folder
        pins = "+".join(f"{wheel.name} {wheel.version}" for wheel in settings.packages)
        self.version = settings.version or (local_version(folder) if folder else pins)
        self._loaded: dict[str, Any] = {}
        files = {file for direction in settings.directions.values() for file in vars(direction).values() if file}
        for file in sorted(files) if folder else ():
            if not is_safe_path(file) or not (folder / file).is_file():
                raise UserError(
                    f"params.yaml: translate.engines.{name}.directions names {file!r}, which is not a file in {folder}; accepted: "
                    f"paths relative to that folder, {LOCAL_MODEL}"
                )

    def supports(self, source: str, target: str) -> bool:
        return f"{source}-{target}" in self.settings.directions

    def _file(self, name: str) -> bytes:
        if self._folder:
            return (self._folder / name).read_bytes()
        wheels = [download(wheel, self._scratch / "wheels") for wheel in self.settings.packages]
        return extract(name, wheels)

    def client(self, source: str, target: str) -> Callable[[Sequence[str]], list[str]]:
        try:
            from fxtranslate import Translator
        except ImportError:
            raise UserError(f"translate.engines.{self.name} needs a package: pip install 'babelcart[neural]'") from None
        way = f"{source}-{target}"
        if way not in self._loaded:
            files = self.settings.directions[way]
            vocabulary = self._file(files.vocabulary)
            other = self._file(files.target_vocabulary) if files.target_vocabulary else vocabulary
            self._loaded[way] = Translator(self._file(files.model), vocabulary, other)
        translator = self._loaded[way]
        return lambda texts: [translator.translate(text) for text in texts]


class Generator:
    """A model that transformers loads and lets generate, greedily, a batch of a length at a time."""

    network = False
    max_characters = 1000
    model_class = "AutoModelForSeq2SeqLM"
    padding_side = "right"

    def __init__(self, name: str, settings: EngineSettings, folder: Path | None) -> None:
        self.name, self.settings, self.batch_size, self._folder = name, settings, settings.batch_size, folder
        self.version = settings.version or (local_version(folder) if folder else f"{settings.repo}@{str(settings.revision)[:12]}")

    def supports(self, source: str, target: str) -> bool:
        return not self.settings.directions or f"{source}-{target}" in self.settings.directions

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """Tokenizer and model, on the best device."""
        import torch
        import transformers

        where: dict[str, Any] = {"pretrained_model_name_or_path": self._folder or self.settings.repo, "revision": self.settings.revision}
        # Written by the stage `base`: the files of a hub model are in the hub's cache.
        if self._folder and (record := self._folder / "base.json").exists():
            hub = read_json(record, {"repo?": str, "revision?": str})
            where |= {"pretrained_model_name_or_path": hub["repo"], "revision": hub["revision"]} if "repo" in hub else {}
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        model = getattr(transformers, self.model_class).from_pretrained(**where, dtype=dtype, use_safetensors=True, trust_remote_code=False)
        tokenizer = transformers.AutoTokenizer.from_pretrained(**where, trust_remote_code=False, padding_side=self.padding_side)
        return tokenizer, model.to(device).eval()

    def generate(self, texts: Sequence[str]) -> tuple[Any, int]:
        """Token ids made for each text, and the length of the padded input."""
        import torch

        tokenizer, model = self.loaded
        batch = tokenizer(list(texts), padding=True, return_tensors="pt").to(model.device)
        length = batch["input_ids"].shape[1]
        with torch.inference_mode():
            made = model.generate(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], do_sample=False, num_beams=1,
                max_new_tokens=96,  # a query is far shorter; not of the batch, or neighbours would change an answer
            )  # fmt: skip
        return made, length


class Seq2Seq(Generator):
    """An encoder-decoder model: OPUS-MT, MADLAD-400, NLLB (its licence forbids commercial use)."""

    def client(self, source: str, target: str) -> Callable[[Sequence[str]], list[str]]:
        prefix = self.settings.prefix.replace("{source}", source).replace("{target}", target)

        def translate(texts: Sequence[str]) -> list[str]:
            made, _ = self.generate([prefix + text for text in texts])
            return [text.strip() for text in self.loaded[0].batch_decode(made, skip_special_tokens=True)]

        return translate


class Prompted(Generator):
    """A language model, shown what a translation looks like and asked for one line."""

    model_class = "AutoModelForCausalLM"
    padding_side = "left"  # what it says follows the last token

    def supports(self, source: str, target: str) -> bool:
        return source in ENGLISH and target in ENGLISH

    def client(self, source: str, target: str) -> Callable[[Sequence[str]], list[str]]:
        ask = f"A shop's search queries in {ENGLISH[source]} and {ENGLISH[target]}.\n{ENGLISH[source]}: {{}}\n{ENGLISH[target]}:"

        def translate(texts: Sequence[str]) -> list[str]:
            made, length = self.generate([ask.replace("{}", text) for text in texts])
            answers = self.loaded[0].batch_decode(made[:, length:], skip_special_tokens=True)
            return [(answer.strip().splitlines() or [""])[0].strip() for answer in answers]

        return translate
