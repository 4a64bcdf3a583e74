"""The model card of a fused model: what it is, how it is asked, and who has trained it."""

from collections.abc import Mapping, Sequence
from typing import Literal

from configs.corpus import TaskFormat
from configs.run import RunSpec
from peer.fused.routed import TASK
from peer.train.outer import SWARM

Format = Literal["routed", "mixtral", "llama", "peft", "gguf"]

MAX_LISTED = 20  # peers of a block that the card names

USE_ROUTED = """Ask it with `shoal generate DIR "prompt"`, measure it with `shoal eval DIR`. Each folder is also a plain
Llama that Transformers loads by itself."""

USE_STANDARD = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(DIR)
tokenizer = AutoTokenizer.from_pretrained(DIR)
```"""

USE_GGUF = """llama.cpp and what is built on it read `model.gguf`: `llama-cli -m DIR/model.gguf`."""

USE_PEFT = """```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), DIR)
```"""


def model_card(
    spec: RunSpec,
    domains: Mapping[str, str],
    format: Format,
    ages: Mapping[str, Mapping[str, int]],
    task: TaskFormat | None,
) -> str:
    """Return the card, Markdown with the hub's header.

    `domains` are what each sub-model was trained on; `ages` the tokens that each peer has put into each block.
    """
    origin = spec.origin
    header = ["library_name: transformers", "pipeline_tag: text-generation", "tags: [shoal]"]
    header += [f"base_model: {origin.name}"] if origin is not None and origin.name else []
    header += [f"license: {origin.licence}"] if origin is not None and origin.licence else []
    context_length = spec.model.context_length if origin is None else origin.context_length
    parts = [
        "\n".join(["---", *header, "---"]),
        f"# {spec.name}",
        f"A causal language model, trained by a Shoal swarm (run `{spec.run_id}`, strategy `{spec.strategy.kind}`) "
        f"and fused as `{format}`.",
        _table(("sub-model", "trained on"), [(f"`{name}`", domain) for name, domain in domains.items()]),
        f"Context: {context_length} tokens. Vocabulary: {spec.model.vocab_size} tokens.",
    ]
    if origin is not None:
        began = f"It began as {origin.name or 'a pretrained model'}"
        licensed = f", whose licence is {origin.licence}" if origin.licence else ""
        parts.append(f"{began}{licensed}; here it was trained on texts of {spec.model.context_length} tokens.")
    if task is not None:
        asked = f"turns in the format {task.chat}" if task.chat else repr(task.prompt)
        parts.append(f"Before it answers it reads {asked}, as in `{TASK}`.")
    parts.append({"routed": USE_ROUTED, "peft": USE_PEFT, "gguf": USE_GGUF}.get(format, USE_STANDARD))
    if ages:
        parts += ["## Who trained it", _contributions(spec, ages)]
    return "\n\n".join(parts) + "\n"


def _contributions(spec: RunSpec, ages: Mapping[str, Mapping[str, int]]) -> str:
    """List the tokens that each peer has put into each block, the largest share first."""
    rows = []
    for block, of_peer in sorted(ages.items()):
        ordered = sorted(of_peer.items(), key=lambda each: (-each[1], each[0]))
        listed = [("all others" if peer == SWARM else f"`{peer}`", count) for peer, count in ordered[:MAX_LISTED]]
        if left := ordered[MAX_LISTED:]:
            listed.append((f"{len(left)} more", sum(count for _, count in left)))
        total = max(1, sum(of_peer.values()))
        rows += [(f"`{block}`", name, f"{count:,}", f"{count / total:.1%}") for name, count in listed]
    inner = spec.inner
    how = f"{inner.optimizer} inside, learning rate {inner.learning_rate:g}, {inner.batch_tokens} tokens a step"
    planned = f"The run was planned for {spec.total_tokens:,} tokens ({how}), offers in {spec.outer.codec}."
    if len(ages) > 1:
        planned += " What a block absorbed in the common phase, before the sub-models parted, is counted in it too."
    return f"{planned}\n\n{_table(('block', 'peer', 'tokens', 'share'), rows)}"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
