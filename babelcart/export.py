"""Write a trained adapter or a merged model to a folder that peft or plain transformers can load."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from babelcart.core.config import load_section
from babelcart.core.errors import UserError
from babelcart.core.files import write_json
from babelcart.model.loading import check_adapter, files_folder, load_adapter, load_base
from babelcart.model.scoring import Predict, score
from babelcart.weights.hub import LICENCE_FILES, is_named

if TYPE_CHECKING:
    import pandas as pd

    from babelcart.model.prompts import PromptTokenizer
    from babelcart.model.task_model import TaskModel
    from babelcart.scores.metrics import Decision

Dtype = Literal["float32", "bfloat16"]
# With this file, a program can build the same prompts as `predict` and apply the same threshold.
CONTRACT = "babelcart.json"
WORK_BYTES = 2**31  # of free memory on a GPU, for scoring beside the weights
# A script that needs nothing of Babelcart, and the name of its copy in an export.
SCRIPT, EXAMPLE = Path(__file__).with_name("published_example.py"), "example.py"
# Arguments of the script in the model card. They are fixed, so that the card shows no row of the data.
EXAMPLE_ARGUMENTS = {
    "qc": '"folding chair for camping" "outdoor equipment,camping chairs" "musical instruments,violins"',
    "qi": '"folding chair for camping" "Light Chair for Camping, Steel Frame" "Violin Strings, Set of 4"',
}
USAGE = """
## Use

{contents}
`example.py` prints p(relevant) and the decision for each candidate of a query.
It needs {packages}.

```bash
python example.py {arguments} --language en{base}
```

`babelcart.json` holds the prompt, the ids of the two label tokens and the thresholds.
"""


def licence_files(base: Path) -> Iterator[Path]:
    """Yield files beside the weights of a base model that state its licence: `babelcart.weights.hub.LICENCE_FILES`.

    Parameters
    ----------
    base : pathlib.Path
        Folder of the base model, written by the `base` stage. For a model from the hub, the files are in the cache of the hub.
    """
    for path in sorted(files_folder(base).iterdir()):
        if is_named(path, LICENCE_FILES):
            yield path


def _merge(task_model: TaskModel, dtype: Dtype | None) -> Any:
    """Return the base model, without quantization and in a dtype, with the adapter merged into its weights.

    It is on the CPU: without quantization, a model that was trained in 4 bits may not fit into the memory of the GPU.
    """
    settings = replace(task_model.settings, quantization="none", dtype=dtype or task_model.settings.dtype)
    base = load_base(task_model.base, settings, on_cpu=True)
    return load_adapter(base, task_model.adapter).merge_and_unload(safe_merge=True)


def decide_again(merged: Any, tokenizer: PromptTokenizer, validation: pd.DataFrame) -> Decision:
    """Choose the thresholds of a merged model.

    An adapter that was trained on an NF4 base gives other probabilities when it is merged into the weights that were not quantised.

    Parameters
    ----------
    merged : transformers.PreTrainedModel
        On the CPU. It is moved to the GPU if there is one with enough free memory.
    tokenizer : PromptTokenizer
    validation : pandas.DataFrame
        The labelled validation rows.
    """
    import torch

    from babelcart.scores.metrics import Evaluate, decide

    if torch.cuda.is_available() and torch.cuda.mem_get_info()[0] > merged.get_memory_footprint() + WORK_BYTES:
        merged = merged.to("cuda")
    rows = tokenizer.encode_table(validation)
    probability = score(merged.eval(), rows, tokenizer.labels, load_section(Predict), "validation rows, merged model")
    return decide(validation.assign(probability=probability), load_section(Evaluate))


def usage(task_model: TaskModel, merge: bool) -> str:
    """Return the section of the model card that shows how to load an export and which packages that needs."""
    is_nf4, is_named_base = task_model.settings.quantization == "nf4", bool(task_model.settings.weights.repo)
    packages = ["`torch`", "`transformers`"]
    if merge:
        contents = "This is the base model with the adapter merged into its weights."
        if is_nf4:
            contents += (
                "\nThe adapter was trained on the base model in 4 bits (NF4), and the scores below are those of the model in 4 bits."
                "\nThe weights here are not quantised, and the thresholds in `babelcart.json` were chosen for them."
            )
    else:
        contents = "This is the adapter; it is loaded on top of its base model."
        packages.append("`peft`")
        if is_nf4:
            contents += "\nIt was trained and scored on the base model in 4 bits (NF4), and `example.py` loads it in this form."
            packages.append("`bitsandbytes`")
    return USAGE.format(
        contents=contents,
        packages=f"{', '.join(packages[:-1])} and {packages[-1]}",
        arguments=EXAMPLE_ARGUMENTS[task_model.adapter.name],
        base="" if merge or is_named_base else " --base FOLDER_OF_THE_BASE_MODEL",
    )


def _write_card(card: Path, readme: Path, task_model: TaskModel, merge: bool) -> None:
    """Write the card of an adapter as the card of an export, with the section of `usage` before the first other one."""
    from huggingface_hub import ModelCard

    content = ModelCard.load(card)
    if merge:
        content.data.library_name, content.data.base_model_relation = "transformers", "finetune"
    introduction, heading, rest = content.text.partition("\n## ")
    content.text = introduction + usage(task_model, merge) + heading + rest
    content.save(readme)


def export_model(
    task_model: TaskModel,
    out: Path,
    *,
    merge: bool,
    dtype: Dtype | None = None,
    decision: Decision | None = None,
    card: Path | None = None,
    validation: pd.DataFrame | None = None,
) -> list[str]:
    """Write the adapter, or the base model with the adapter merged into its weights, to a new folder.

    The folder also contains ``babelcart.json`` (the prompt, the ids of the two label tokens, the thresholds), ``example.py``, the model
    card, and the licence files of the base model, whose terms apply to both forms.
    An export that fails leaves no folder behind under the name `out`.

    Parameters
    ----------
    task_model : TaskModel
        The base model, the adapter and the prompt to export.
    out : pathlib.Path
        The folder to create; it must not exist.
    merge : bool
        Write the merged model. For an NF4 model, the base model is loaded without quantization, on the CPU. Otherwise, write the adapter.
    dtype : {"float32", "bfloat16"}, optional
        Dtype to which the weights of the merged model are rounded; by default, that of the settings.
    decision : Decision, optional
        Smallest p(relevant) that counts as "relevant", of the task and of languages, as chosen by the `evaluate` stage. Not rounded.
    card : pathlib.Path, optional
        The adapter's model card; written as ``README.md``, the name that the Hugging Face hub expects, with the section of `usage`.
    validation : pandas.DataFrame, optional
        Labelled validation rows, on which the thresholds of the merged model are chosen anew (`decide_again`).

    Returns
    -------
    list of str
        Names of the licence files.

    Raises
    ------
    UserError
        If `out` exists, or `babelcart.model.loading.check_adapter` rejects the adapter, or the prompt in params.yaml is another one than
        that of the adapter.
    """
    if out.exists():
        raise UserError(f"{out} exists; choose another folder or remove it")
    check_adapter(task_model.adapter)
    task_model.check_prompt()
    tokenizer = task_model.load_tokenizer()
    unfinished = out.with_name(f".{out.name}.half")  # renamed to `out` when complete
    shutil.rmtree(unfinished, ignore_errors=True)
    if merge:
        merged = _merge(task_model, dtype)
        merged.save_pretrained(unfinished)
        tokenizer.tokenizer.save_pretrained(unfinished)
        if validation is not None:
            decision = decide_again(merged, tokenizer, validation)
    else:
        shutil.copytree(task_model.adapter, unfinished)
    licences = [shutil.copyfile(path, unfinished / path.name).name for path in licence_files(task_model.base)]
    shutil.copyfile(SCRIPT, unfinished / EXAMPLE)
    contract: dict[str, Any] = {"prompt": asdict(task_model.prompt), "label_tokens": asdict(tokenizer.labels), "threshold": None}
    contract["quantization"] = "none" if merge else task_model.settings.quantization
    if decision:
        contract |= {"threshold": decision.threshold, "thresholds": decision.languages}
    write_json(unfinished / CONTRACT, contract)
    if card:
        _write_card(card, unfinished / "README.md", task_model, merge)
    unfinished.rename(out)
    return licences
