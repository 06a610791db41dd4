"""Ask this model whether candidates answer a query; print p(relevant) and the decision for each candidate.

    python example.py "QUERY" "CANDIDATE" ["CANDIDATE" ...] --language en

Needs torch and transformers; peft if this folder holds an adapter; bitsandbytes if the base model is loaded in 4 bits. The file
babelcart.json holds the prompt, the ids of the two label tokens and the thresholds.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent  # not resolved: in the cache of the hub, files are links


def load(base: str | None, dtype: str, quantization: str) -> tuple[Any, Any]:
    """Load the model and its tokenizer, on the GPU if there is one.

    Parameters
    ----------
    base : str, optional
        Name on the Hugging Face hub or folder of the base model of an adapter, in place of the one in adapter_config.json.
    dtype : str
        ``float32`` or ``bfloat16``.
    quantization : str
        ``nf4`` loads the base model in 4 bits, as in the training of the adapter; ``none`` does not.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    source, revision, is_adapter = str(FOLDER), "main", (FOLDER / "adapter_config.json").exists()
    if is_adapter:
        adapter = json.loads((FOLDER / "adapter_config.json").read_text(encoding="utf-8"))
        source, revision = (base, revision) if base else (adapter["base_model_name_or_path"], adapter["revision"] or revision)
    options: dict[str, Any] = {"revision": revision, "dtype": getattr(torch, dtype)}
    if quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=options["dtype"]
        )
    model = AutoModelForCausalLM.from_pretrained(source, **options)
    if quantization == "none":  # transformers places a quantised model itself
        model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    if is_adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(FOLDER))
    return model.eval(), AutoTokenizer.from_pretrained(source, revision=revision)


def encode(tokenizer: Any, prompt: Mapping[str, Any], language: str, texts: Mapping[str, str]) -> list[int]:
    """Return the token ids of the prompt of one query and candidate.

    The texts between the fields of the template and the texts of the fields are tokenised one by one. Special tokens in a query or a
    candidate, such as ``<eos>``, become the tokens of these characters.
    """
    limits = {"query": prompt["max_query_tokens"], "pivot": prompt["max_query_tokens"], "candidate": prompt["max_candidate_tokens"]}
    tokens = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    pieces = re.split(r"\{(query|pivot|candidate)\}", prompt["template"].replace("{language}", language))
    for index, piece in enumerate(pieces):  # text and names of fields alternate
        text = texts[piece] if index % 2 else piece
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=bool(index % 2))["input_ids"] if text else []
        tokens += ids[: limits[piece]] if index % 2 else ids
    return tokens


def p_relevant(model: Any, label_tokens: Mapping[str, int], tokens: Sequence[int]) -> float:
    """Return the softmax of the logits of the two label tokens after the prompt, computed in float32 whatever the dtype of the model."""
    import torch

    with torch.inference_mode():
        hidden = model.get_decoder()(input_ids=torch.tensor([tokens], device=model.device)).last_hidden_state[0, -1].float()
        head = model.get_output_embeddings().weight[[label_tokens["negative"], label_tokens["positive"]]].float()
        logits = head @ hidden
        if cap := getattr(model.config.get_text_config(), "final_logit_softcapping", None):
            logits = torch.tanh(logits / cap) * cap
    return torch.softmax(logits.double(), dim=-1)[1].item()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and print a line for each candidate."""
    parser = argparse.ArgumentParser(description="Print p(relevant) and the decision for each candidate of a query.")
    parser.add_argument("query")
    parser.add_argument("candidates", nargs="+", help="category paths or titles of items, as in the training data")
    parser.add_argument("--language", default="en", help="ISO 639-1 code of the query (default: en)")
    parser.add_argument("--pivot", help="translation of the query, if the prompt contains {pivot} (default: the query)")
    parser.add_argument("--base", help="name or folder of the base model, in place of the one in adapter_config.json")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="bfloat16 needs half the memory")
    options = parser.parse_args(arguments)

    contract = json.loads((FOLDER / "babelcart.json").read_text(encoding="utf-8"))
    model, tokenizer = load(options.base, options.dtype, contract["quantization"])
    threshold = contract.get("thresholds", {}).get(options.language.lower(), contract["threshold"])
    for candidate in options.candidates:
        texts = {"query": options.query, "pivot": options.pivot or options.query, "candidate": candidate}
        tokens = encode(tokenizer, contract["prompt"], options.language, texts)
        probability = p_relevant(model, contract["label_tokens"], tokens)
        decision = "" if threshold is None else "relevant" if probability >= threshold else "not relevant"
        print(f"{probability:.6f}", decision, candidate, sep="\t")


if __name__ == "__main__":
    main()
