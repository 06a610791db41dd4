"""Translation engines with a common interface, `Engine`.

An engine is a block under ``translate.engines`` in params.yaml. Its `kind` is an engine of deep-translator, ``neural`` (Firefox
translation models on this machine), ``seq2seq`` (such as OPUS-MT or MADLAD-400, through transformers) or ``llm``. API keys are read from
the environment variables that deep-translator defines (such as DEEPL_API_KEY), never from params.yaml.
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
from babelcart.rows import languages
from babelcart.translation import notices
from babelcart.translation.network import EngineUnavailable, TemporaryFailure, TextRefused
from babelcart.weights.wheels import Wheel, check_hub, download, extract, local_folder, local_version

# Engines of deep-translator: class, longest text in characters. Not supported: linguee, because it takes only names of languages, and
# qcri, because it needs a domain.
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
# Codes that engines use for a language; the first that the engine knows is used.
_CODES = {
    "zh": ("zh-CN", "zh-cn", "zh-Hans", "zh-chs", "zh"), "he": ("he", "iw"), "jv": ("jv", "jw"), "nb": ("nb", "no"), "fil": ("fil", "tl"),
    "pt": ("pt", "pt-PT", "pt-BR"), "en": ("en", "en-GB", "en-US"), "ar": ("ar", "ar-SA", "ara"), "ja": ("ja", "jp"), "ko": ("ko", "kor"),
    "no": ("no", "nb", "nb-NO"),
}  # fmt: skip
# Codes of the servers that list their languages themselves, where they differ from ISO 639-1.
_SERVER_CODES = {
    "microsoft": {"zh": "zh-hans", "no": "nb", "sr": "sr-cyrl", "mn": "mn-cyrl"},
    "yandex": {"nb": "no", "fil": "tl"},
}
# Prefixes of the tables of codes in deep_translator.constants.
_CODE_TABLES = {
    "google": "GOOGLE", "mymemory": "MY_MEMORY", "libre": "LIBRE", "deepl": "DEEPL", "baidu": "BAIDU", "papago": "PAPAGO", "pons": "PONS",
}  # fmt: skip
# Names of languages, for prompts.
_ENGLISH_NAMES = {
    "ar": "Arabic", "de": "German", "en": "English", "es": "Spanish", "fr": "French", "id": "Indonesian", "it": "Italian",
    "ja": "Japanese", "ko": "Korean", "pl": "Polish", "pt": "Portuguese", "th": "Thai", "vi": "Vietnamese",
}  # fmt: skip

# The setting with the folder of a model that is not downloaded. DVC tracks it as a dependency of the stage.
LOCAL_MODEL = "translate.local_model"


@dataclass(frozen=True)
class NeuralModel:
    """Files of a neural engine for one direction, in its packages or in the folder ``translate.local_model``."""

    model: str
    vocabulary: str
    target_vocabulary: str | None = None


@dataclass(frozen=True)
class EngineSettings:
    """A block under ``translate.engines``."""

    kind: Literal[Scraped, "neural", "seq2seq", "llm"]
    # Part of the key of memory entries: change it when the engine behind a name changes.
    version: str | None = None
    # libre: address of the server.
    base_url: str | None = None
    # neural: packages with model files, and the files of each direction, such as "en-pt". Without packages, the files are in
    # translate.local_model.
    packages: tuple[Wheel, ...] = ()
    directions: dict[str, NeuralModel] = field(default_factory=dict)
    # seq2seq, llm: hub repository and commit. Without them, the model is in translate.local_model.
    repo: str | None = None
    revision: str | None = None
    # seq2seq: text before each source text, with the placeholders {source} and {target}; "<2{target}> " for MADLAD-400.
    prefix: str = ""
    batch_size: int = bounded(1, 4096, default=32)

    def __post_init__(self) -> None:
        if self.kind == "neural" and not self.directions:
            raise ValueError("a neural engine has no directions; set directions: {en-pt: {model: FILE, vocabulary: FILE}}")
        directions = {languages.direction(pair, "directions"): model for pair, model in self.directions.items()}
        if len(directions) != len(self.directions):
            raise ValueError(f"directions names a pair of languages twice: {', '.join(self.directions)}")
        object.__setattr__(self, "directions", directions)
        if self.repo:
            check_hub("repo", self.repo, self.revision, LOCAL_MODEL)
        elif self.revision:
            raise ValueError(f"revision is {self.revision!r} without repo; set repo to the model of this commit, or remove revision")

    @property
    def local(self) -> bool:
        """Whether the engine reads its model from ``translate.local_model``."""
        return {"neural": not self.packages, "seq2seq": not self.repo, "llm": not self.repo}.get(self.kind, False)


# Translates a batch of texts.
Client = Callable[[Sequence[str]], list[str]]


class Engine(Protocol):
    """The interface of all engines.

    Attributes
    ----------
    name, version : str
        Part of the key of memory entries.
    network : bool
        Whether texts leave this machine.
    max_characters : int
        Longest text.
    batch_size : int
        Maximum number of texts in one call of the client.
    """

    name: str
    version: str
    network: bool
    max_characters: int
    batch_size: int

    def supports(self, source: str, target: str) -> bool:
        """Return whether the engine translates from `source` to `target` (ISO 639-1 codes)."""

    def client(self, source: str, target: str) -> Client:
        """Make a function for one thread that translates up to `batch_size` texts.

        Raises
        ------
        TemporaryFailure, TextRefused, EngineUnavailable
            Only by engines with `network`: this method and the function (see `babelcart.translation.network`).
        """


def build(name: str, settings: EngineSettings, scratch: Path, timeout: float, local_model: str | None = None) -> Engine:
    """Build the engine of a block under ``translate.engines``. Weights are loaded at the first use.

    Parameters
    ----------
    name : str
        Name of the block.
    settings : EngineSettings
    scratch : Path
        Folder for downloads.
    timeout : float
        Seconds to wait for an answer of a server.
    local_model : str, optional
        ``translate.local_model``, the folder of the model if `EngineSettings.local`.

    Returns
    -------
    Engine

    Raises
    ------
    UserError
        If the folder does not exist or lacks a file that the settings name.
    """
    if settings.kind in get_args(Scraped):
        return DeepTranslator(name, settings, timeout)
    folder = local_folder(LOCAL_MODEL, local_model) if settings.local else None
    if settings.kind == "neural":
        return Neural(name, settings, scratch, folder)
    return Seq2Seq(name, settings, folder) if settings.kind == "seq2seq" else Prompted(name, settings, folder)


class Transport:
    """A replacement for ``requests`` in the modules of deep-translator.

    It keeps connections open, sets a timeout, and raises the exceptions of `babelcart.translation.network`. deep-translator itself opens
    a connection for each text, sets no timeout and ignores Retry-After.

    Parameters
    ----------
    timeout : float
        Seconds to wait for an answer.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._local = threading.local()

    def __getattr__(self, name: str) -> Any:
        import requests

        return getattr(requests, name)

    def get(self, url: str, **options: Any) -> Any:
        return self._send("GET", url, options)

    def post(self, url: str, **options: Any) -> Any:
        return self._send("POST", url, options)

    def _send(self, method: str, url: str, options: dict[str, Any]) -> Any:
        import requests

        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        try:
            response = self._local.session.request(method, url, timeout=self.timeout, **options)
        except requests.RequestException as error:
            self._local.session.close()  # a late answer on this connection would be taken for that of the next text
            del self._local.session
            raise TemporaryFailure(type(error).__name__) from error
        if response.status_code == 429 or response.status_code >= 500:
            raise TemporaryFailure(f"status {response.status_code}", _seconds(response.headers.get("Retry-After")))
        if response.status_code in (401, 403):
            raise EngineUnavailable(f"status {response.status_code}: check that the API key is correct and has access to translation")
        if response.status_code in (402, 456):  # 456: DeepL's quota is used up
            raise EngineUnavailable(f"status {response.status_code}: the quota of the account is used up")
        if "charset" not in response.headers.get("Content-Type", "").lower():
            response.encoding = "utf-8"  # requests would decode text/html as ISO 8859-1
        if reported := _reported_error(response):
            raise TemporaryFailure(reported)
        return response


def _reported_error(response: Any) -> str | None:
    """Find an error in the JSON of a response; deep-translator ignores it if the response also has the field of the translation."""
    if response.status_code >= 300 or response.content.lstrip()[:1] != b"{":
        return None
    try:
        return notices.reported_error(response.json())
    except (ValueError, RecursionError):
        return None  # deep-translator parses it again, and `DeepTranslator` handles the error


def _seconds(retry_after: str | None) -> float | None:
    """Convert a Retry-After header, a number or an HTTP date (RFC 9110, section 10.2.3), to seconds from now."""
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


class DeepTranslator:
    """An engine of deep-translator.

    Parameters
    ----------
    name : str
    settings : EngineSettings
    timeout : float
        Seconds to wait for an answer.
    """

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
            # deep-translator requires a key even if the server does not.
            url = {"custom_url": self.settings.base_url.rstrip("/") + "/"} if self.settings.base_url else {}
            return {"api_key": os.environ.get("LIBRE_API_KEY") or "none", **url}
        if self.settings.kind == "papago":
            return {"client_id": os.environ.get("PAPAGO_CLIENT_ID"), "secret_key": os.environ.get("PAPAGO_SECRET_KEY")}
        if self.settings.kind == "microsoft":
            return {"region": os.environ.get("MICROSOFT_REGION")}
        return {}

    def _code(self, language: str) -> str | None:
        import deep_translator.constants as constants

        known: set[str] = set()
        if prefix := _CODE_TABLES.get(self.settings.kind):
            for name, table in vars(constants).items():
                if name.startswith(prefix) and isinstance(table, dict) and "LANGUAGE" in name:
                    known |= {*table.keys(), *table.values()}
        codes = [language, f"{language}-{language.upper()}", *_CODES.get(language, ())]
        if not known:  # microsoft and yandex get their codes from the server; chatgpt takes names
            if self.settings.kind == "chatgpt":
                return _ENGLISH_NAMES.get(language)
            return _SERVER_CODES.get(self.settings.kind, {}).get(language, language)
        known_codes = [code for code in codes if code in known] or sorted(code for code in known if code.startswith(f"{language}-"))
        return known_codes[0] if known_codes else None

    def supports(self, source: str, target: str) -> bool:
        return self._code(source) is not None and self._code(target) is not None

    def client(self, source: str, target: str) -> Client:
        try:
            translator = self._class(source=self._code(source), target=self._code(target), **self._arguments())
        except TemporaryFailure:
            raise
        except Exception as error:  # a dozen types: papago raises Exception itself if the key is missing
            raise EngineUnavailable(f"{self.name}: {error}") from error
        return lambda texts: [self._translate(translator, texts[0])]

    def _translate(self, translator: Any, text: str) -> str:
        from deep_translator import exceptions

        try:
            answer = translator.translate(text)
        except (TemporaryFailure, EngineUnavailable):
            raise
        except (exceptions.AuthorizationException, exceptions.ApiKeyException) as error:
            raise EngineUnavailable(f"{self.name}: {error}") from error
        except exceptions.TooManyRequests as error:
            raise TemporaryFailure("too many requests") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # the answer does not follow the protocol
            raise TemporaryFailure(f"unreadable answer ({type(error).__name__})") from error
        except (exceptions.TranslationNotFound, exceptions.ElementNotFoundInGetRequest, StopIteration) as error:
            if self.settings.kind == "pons":  # a dictionary lacks many words
                raise TextRefused("not in the dictionary", is_failure=False) from error
            # The page or the JSON has no translation, as the consent page of Google.
            raise TemporaryFailure(f"unreadable answer ({type(error).__name__})") from error
        except (exceptions.NotValidLength, exceptions.NotValidPayload) as error:
            raise TextRefused(type(error).__name__, is_failure=False) from error  # was not sent
        except Exception as error:  # a status such as 400, or an error of the API
            raise TextRefused(type(error).__name__) from error
        if isinstance(answer, list) and len(answer) == 1:  # from yandex
            answer = answer[0]
        if not isinstance(answer, str):
            raise TextRefused("no answer")
        answer = html.unescape(answer)
        if UNWRITABLE.search(answer):
            raise TextRefused("invalid characters")
        return answer


class Neural:
    """Firefox translation models (quantised Marian models) on this machine, through `fxtranslate`."""

    network = False
    max_characters = 500
    batch_size = 16

    def __init__(self, name: str, settings: EngineSettings, scratch: Path, folder: Path | None) -> None:
        self.name, self.settings, self._scratch, self._folder = name, settings, scratch, folder
        packages = "+".join(f"{wheel.name} {wheel.version}" for wheel in settings.packages)
        self.version = settings.version or (local_version(folder) if folder else packages)
        self._models: dict[str, Any] = {}  # by direction
        files = {file for direction in settings.directions.values() for file in vars(direction).values() if file}
        for file in sorted(files) if folder else ():
            if not is_safe_path(file) or not (folder / file).is_file():
                raise UserError(
                    f"params.yaml: translate.engines.{name}.directions names {file!r}, which is not a file in {folder}; accepted: "
                    f"paths relative to that folder, which {LOCAL_MODEL} names"
                )

    def supports(self, source: str, target: str) -> bool:
        return f"{source}-{target}" in self.settings.directions

    def _read(self, name: str) -> bytes:
        if self._folder:
            return (self._folder / name).read_bytes()
        wheels = [download(wheel, self._scratch / "wheels") for wheel in self.settings.packages]
        return extract(name, wheels)

    def client(self, source: str, target: str) -> Client:
        try:
            from fxtranslate import Translator
        except ImportError:
            raise UserError(f"translate.engines.{self.name} needs a package: pip install 'babelcart[neural]'") from None
        direction = f"{source}-{target}"
        if direction not in self._models:
            files = self.settings.directions[direction]
            vocabulary = self._read(files.vocabulary)
            target_vocabulary = self._read(files.target_vocabulary) if files.target_vocabulary else vocabulary
            self._models[direction] = Translator(self._read(files.model), vocabulary, target_vocabulary)
        translator = self._models[direction]
        return lambda texts: [translator.translate(text) for text in texts]


class GenerativeEngine:
    """Base of engines that generate translations with transformers, by greedy decoding.

    Parameters
    ----------
    name : str
    settings : EngineSettings
    folder : Path or None
        Folder of the model; None for a model of the hub.
    """

    network = False
    max_characters = 1000
    max_new_tokens = 96  # far more than a query has; fixed, so that an answer does not depend on the other texts of its batch
    model_class = "AutoModelForSeq2SeqLM"
    padding_side = "right"

    def __init__(self, name: str, settings: EngineSettings, folder: Path | None) -> None:
        self.name, self.settings, self.batch_size, self._folder = name, settings, settings.batch_size, folder
        self.version = settings.version or (local_version(folder) if folder else f"{settings.repo}@{str(settings.revision)[:12]}")

    def supports(self, source: str, target: str) -> bool:
        return not self.settings.directions or f"{source}-{target}" in self.settings.directions

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """Tokenizer and model, on the GPU if there is one."""
        import torch
        import transformers

        location: dict[str, Any] = {"pretrained_model_name_or_path": self._folder or self.settings.repo, "revision": self.settings.revision}
        # The stage `base` writes base.json instead of the files if the model is in the cache of the hub.
        if self._folder and (record := self._folder / "base.json").exists():
            base = read_json(record, {"repo?": str, "revision?": str})
            location |= {"pretrained_model_name_or_path": base["repo"], "revision": base["revision"]} if "repo" in base else {}
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        model_class = getattr(transformers, self.model_class)
        model = model_class.from_pretrained(**location, dtype=dtype, use_safetensors=True, trust_remote_code=False)
        tokenizer = transformers.AutoTokenizer.from_pretrained(**location, trust_remote_code=False, padding_side=self.padding_side)
        return tokenizer, model.to(device).eval()

    def generate(self, texts: Sequence[str]) -> tuple[Any, int]:
        """Generate a continuation or translation of each text.

        Returns
        -------
        token_ids : torch.Tensor of int64, (texts, generated tokens)
            Models without an encoder repeat the padded input at the start.
        input_length : int
            Tokens of the padded input.
        """
        import torch

        tokenizer, model = self.loaded
        inputs = tokenizer(list(texts), padding=True, return_tensors="pt").to(model.device)  # (texts, input tokens)
        with torch.inference_mode():
            token_ids = model.generate(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], do_sample=False, num_beams=1,
                max_new_tokens=self.max_new_tokens,
            )  # fmt: skip
        return token_ids, inputs["input_ids"].shape[1]


class Seq2Seq(GenerativeEngine):
    """An encoder-decoder model, such as OPUS-MT, MADLAD-400 or NLLB (whose licence forbids commercial use)."""

    def client(self, source: str, target: str) -> Client:
        prefix = self.settings.prefix.replace("{source}", source).replace("{target}", target)

        def translate(texts: Sequence[str]) -> list[str]:
            token_ids, _ = self.generate([prefix + text for text in texts])
            return [text.strip() for text in self.loaded[0].batch_decode(token_ids, skip_special_tokens=True)]

        return translate


class Prompted(GenerativeEngine):
    """A language model with a prompt that it completes with a translation."""

    model_class = "AutoModelForCausalLM"
    padding_side = "left"  # generation continues after the last token

    def supports(self, source: str, target: str) -> bool:
        return source in _ENGLISH_NAMES and target in _ENGLISH_NAMES

    def client(self, source: str, target: str) -> Client:
        source_name, target_name = _ENGLISH_NAMES[source], _ENGLISH_NAMES[target]
        prompt = f"A shop's search queries in {source_name} and {target_name}.\n{source_name}: {{}}\n{target_name}:"

        def translate(texts: Sequence[str]) -> list[str]:
            token_ids, input_length = self.generate([prompt.replace("{}", text) for text in texts])
            answers = self.loaded[0].batch_decode(token_ids[:, input_length:], skip_special_tokens=True)
            return [(answer.strip().splitlines() or [""])[0].strip() for answer in answers]

        return translate
