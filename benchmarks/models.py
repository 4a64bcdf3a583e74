"""The models that people have: a run of each family, what a frozen model costs, OpenAI's interface as others use it.

    python -m benchmarks.models [--row NAME …] [--quick] [--json FILE]

families    a tiny model of each family: a run that begins with it, two daemons, 20 rounds, one leaves and comes back,
            then the fused model in plain Transformers with the base's own small files. Its logits before any round are
            those of the original; tests/member/test_founding.py and tests/train/test_family.py hold that too.
base_bytes  adapters on a model of random weights in bfloat16, by default as large as SmolLM2-135M: what a joiner
            downloads without a copy of it, and with one (`--base`), and what it takes of memory
openai      the lm-evaluation-harness (`pip install lm-eval[api]`) against `shoal serve`, beside its own `--model hf` on
            the same folder: log-likelihoods and a generation, of a small Llama

Nothing of this has a counterpart in Hivemind, which knows no models; the baselines are the original model and the
harness's own way to run it.
"""

import argparse
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from benchmarks.boxes import SHOAL, Box, open_boxes, shoal
from benchmarks.families import FAMILIES, TEMPLATE, add_tokenizer, write_model
from benchmarks.patience import until
from benchmarks.report import Bar, at_most, exit_with, finish, parser
from benchmarks.usage import anonymous_bytes, mapped_bytes
from configs.errors import ShoalError
from configs.run import ModelSpec, RunSpec
from peer.http.status import Status
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan
from peer.train.frozen import take_base
from peer.train.sharded import build_sharded

ROUNDS, QUICK_ROUNDS = 20, 5
CONTEXT = 24  # tokens of a training window
QUICK_FAMILIES = ("llama", "qwen3", "gpt2")
SMOLLM2 = {  # the sizes of SmolLM2-135M
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "vocab_size": 49_152, "max_position_embeddings": 8192, "tie_word_embeddings": True,
}  # fmt: skip
SMALLER = {**SMOLLM2, "num_hidden_layers": 4, "vocab_size": 4096}  # for `--quick`
PLAN = """
[run]
name = "family"
total_tokens = 1_000_000_000
[run.model]
vocab_size = 320
hidden_size = 32
num_layers = 2
num_heads = 4
num_kv_heads = 2
mlp_size = 48
context_length = 24
[run.strategy]
kind = "replicas"
[run.inner]
learning_rate = 1e-3
batch_tokens = 240
[run.rounds]
tick_seconds = 1
last_ticks = 1
double_tokens = 1_000_000_000
"""

Measured = Iterator[tuple[str, dict[str, Any], list[Bar]]]


def _families(folder: Path, is_quick: bool) -> Measured:
    rounds = QUICK_ROUNDS if is_quick else ROUNDS
    for kind in QUICK_FAMILIES if is_quick else FAMILIES:
        place = folder / kind
        base = write_model(place / "base", kind)
        add_tokenizer(base)
        corpus = _corpus(place / "corpus", base)
        (place / "plan.toml").write_text(PLAN)
        with _swarm(place, ["--config", str(place / "plan.toml"), "--init-from", str(base)], corpus) as (first, second):
            sealed = first.status_when(lambda status: _sealed(status) >= rounds, f"{rounds} sealed rounds")
            second.stop()
            _join(first, second, corpus)
            more = _sealed(first.status()) + 3
            first.status_when(lambda status, least=more: _sealed(status) >= least, "rounds after it came back")
            out = place / "fused"
            shoal("fuse", str(first.state_dir), "--format", "llama", "--out", str(out))
        ours, theirs = (AutoModelForCausalLM.from_pretrained(each, dtype=torch.float32) for each in (out, base))
        text = "a shoal of fish swims up the river " * 2
        tokens = AutoTokenizer.from_pretrained(out)(text, return_tensors="pt").input_ids[:, :CONTEXT]
        with torch.no_grad():
            after, before = (float(model(input_ids=tokens, labels=tokens).loss) for model in (ours, theirs))
        is_alike = type(ours) is type(theirs) and (out / "chat_template.jinja").read_text() == TEMPLATE
        found = {"rounds": _sealed(sealed), "loss_before": round(before, 3), "loss_after": round(after, 3)}
        yield (
            kind,
            found,
            [
                at_most("families", f"loss after over loss before, {kind}", after / before, 1.0),
                at_most("families", f"class or small files that differ, {kind}", float(not is_alike), 0.0),
            ],
        )


def _base_bytes(folder: Path, is_quick: bool) -> Measured:
    torch.manual_seed(0)
    base = folder / "base"
    sizes = SMALLER if is_quick else SMOLLM2
    model = LlamaForCausalLM(LlamaConfig(**sizes, bos_token_id=1, eos_token_id=2, pad_token_id=0))
    model.bfloat16().save_pretrained(base)
    add_tokenizer(base)
    corpus = _corpus(folder / "corpus", base)
    (folder / "plan.toml").write_text(PLAN)
    file_bytes = (base / "model.safetensors").stat().st_size
    # The first round is long, so that no adapter has been trained yet: their first state follows from the seed.
    settings = ["SHOAL_RUN__STRATEGY__KIND=adapters", "SHOAL_RUN__ROUNDS__TICK_SECONDS=600"]
    shares = {}
    with open_boxes() as boxes:
        boxes += [Box(folder, name) for name in ("founder", "without", "with")]
        _found(boxes[0], ["--config", str(folder / "plan.toml"), "--init-from", str(base)], corpus, settings)
        for box, more in ((boxes[1], []), (boxes[2], ["--base", str(base)])):
            _join(boxes[0], box, corpus, more)
            box.status_when(lambda status: status.state == "training", "to train")
            blob_bytes = sum(path.stat().st_size for path in (box.state_dir / "corpus" / "blobs").iterdir())
            shares[box.name] = box.status().peers[0].bytes_in / file_bytes
            assert blob_bytes >= 0.98 * file_bytes
            spec = RunSpec.model_validate_json((box.state_dir / "run.json").read_bytes())
            blob = box.state_dir / "corpus" / "blobs" / str(spec.initial_id)
            mapped = until(
                partial(mapped_bytes, box.pid, blob.name),
                lambda found: found >= 0.98 * file_bytes,
                "a step on all of it",
            )
            shares["mapped"] = mapped / file_bytes
            box.stop()
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            shares["copied"] = pool.apply(_copied_bytes, (spec.model, blob)) / file_bytes
    found = {"file_bytes": file_bytes, **{name: round(share, 4) for name, share in shares.items()}}
    yield (
        "frozen model",
        found,
        [
            at_most("base_bytes", "downloaded by a joiner without a copy, over the file", shares["without"], 1.02),
            at_most("base_bytes", "downloaded by a joiner with --base, over the file", shares["with"], 0.01),
            at_most(
                "base_bytes",
                "resident in daemon and worker: pages of the file, and copies of it, over the file",
                shares["mapped"] + shares["copied"],
                1.1,
            ),
        ],
    )


def _copied_bytes(spec: ModelSpec, blob: Path) -> int:
    """Return how much memory of its own a process takes for a frozen model and a gradient on a few tokens."""
    torch.set_num_threads(1)
    assert spec.adapter is not None
    smallest = spec.model_copy(update={"adapter": spec.adapter.model_copy(update={"rank": 1})})
    tokens = torch.zeros(1, 3, dtype=torch.long)
    one_layer = smallest.model_copy(update={"num_layers": 1, "vocab_size": 258})
    build_sharded(one_layer, torch.device("cpu"), None)(tokens).backward()  # what is imported for it stays
    before = anonymous_bytes(os.getpid())
    module = build_sharded(smallest, torch.device("cpu"), None)
    take_base(module, smallest, blob)
    module(tokens).backward()
    return anonymous_bytes(os.getpid()) - before


def _openai(folder: Path, is_quick: bool) -> Measured:
    """Let the harness ask a small Llama twice: by `local-completions`, and by its own `hf`."""
    torch.manual_seed(3)
    model = folder / "model"
    sizes = {**SMALLER, "num_hidden_layers": 2, "vocab_size": 320, "max_position_embeddings": 512}
    LlamaForCausalLM(LlamaConfig(**sizes, bos_token_id=1, eos_token_id=2, pad_token_id=0)).save_pretrained(model)
    add_tokenizer(model)
    tasks = _write_tasks(folder)
    with open_boxes() as boxes:
        box = Box(folder, "server")
        boxes.append(box)
        box.start([*SHOAL, "serve", str(model), "--port", "0"])
        url = box.wait_for(r"^serving \S+ at (\S+)/v1;")
        told = f"model=model,tokenizer={model},tokenizer_backend=huggingface,num_concurrent=1,max_retries=1"
        served = _harness(folder, tasks, "local-completions", f"{told},base_url={url}/v1/completions")
    own = _harness(folder, tasks, "hf", f"pretrained={model},dtype=float32")
    for task, scores in own.items():
        worst = max(abs(served[task][name] - value) / max(1.0, abs(value)) for name, value in scores.items())
        yield (
            task,
            {"served": served[task], "hf": scores},
            [at_most("openai", f"largest relative difference of a score, {task}", worst, 1e-4)],
        )


def _write_tasks(folder: Path) -> Path:
    """Write two tasks of the harness, of built-in questions: one by log-likelihood, one by generation."""
    place = folder / "tasks"
    place.mkdir()
    lines = [{"q": f"fish number {n} is", "a": [" red", " blue", " green"][n % 3], "l": n % 3} for n in range(40)]
    (place / "fish.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {place / 'fish.jsonl'}\ntest_split: test\n"
    (place / "ranked.yaml").write_text(
        f"task: ranked\n{data}output_type: multiple_choice\ndoc_to_text: '{{{{q}}}}'\n"
        "doc_to_choice: [' red', ' blue', ' green']\ntarget_delimiter: ''\ndoc_to_target: l\n"
        "metric_list:\n  - metric: acc\n  - metric: acc_norm\n"
    )
    (place / "written.yaml").write_text(
        f"task: written\n{data}output_type: generate_until\ndoc_to_text: '{{{{q}}}}'\ndoc_to_target: a\n"
        "generation_kwargs:\n  until: ['\\n']\n  max_gen_toks: 12\n  do_sample: false\n  temperature: 0\n"
        "metric_list:\n  - metric: exact_match\n"
    )
    (place / "read.yaml").write_text(
        f"task: read\n{data}output_type: loglikelihood\ndoc_to_text: '{{{{q}}}}'\ndoc_to_target: a\n"
        "target_delimiter: ''\nmetric_list:\n  - metric: perplexity\n    aggregation: perplexity\n  - metric: acc\n"
    )
    return place


def _harness(folder: Path, tasks: Path, model: str, told: str) -> dict[str, dict[str, float]]:
    """Run the harness; return the scores of each task. Raises ShoalError."""
    out = folder / f"scores-{model}"
    names = "ranked,written,read"
    command = ["lm_eval", "run", "--model", model, "--model_args", told, "--tasks", names, "--include_path", str(tasks)]
    environment = {**os.environ, "OPENAI_API_KEY": "none", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    done = subprocess.run(
        [sys.executable, "-m", *command, "--output_path", str(out), "--log_samples"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ShoalError(f"the harness did not run {model}: {done.stderr[-2000:]}")
    (path,) = out.rglob("results_*.json")
    found: dict[str, dict[str, float]] = {}
    for task, scores in json.loads(path.read_text())["results"].items():
        numbers = {name: value for name, value in scores.items() if isinstance(value, float | int)}
        found[task] = {name: float(value) for name, value in numbers.items() if "stderr" not in name and "," in name}
    for name in found:  # what was written, too: the scores of a random model are all nothing
        (samples,) = out.rglob(f"samples_{name}_*.jsonl")
        texts = [json.loads(line)["filtered_resps"] for line in samples.read_text().splitlines()]
        found[name]["checksum"] = _checksum(texts)
    return found


def _checksum(texts: Sequence[Any]) -> float:
    """Return a number that differs where texts do, or where logarithms do by more than rounding."""
    total = 0.0
    for value in re.findall(r"-?\d+\.\d+|[^\W\d]", json.dumps(texts)):
        total += float(value) if "." in value else ord(value)
    return total / max(1, len(texts))


@contextmanager
def _swarm(folder: Path, options: Sequence[str], corpus: Path) -> Iterator[tuple[Box, Box]]:
    """Run two daemons of a run that the first founds with these options."""
    with open_boxes() as boxes:
        boxes += [Box(folder, name) for name in ("first", "second")]
        _found(boxes[0], options, corpus)
        _join(boxes[0], boxes[1], corpus)
        yield boxes[0], boxes[1]
        for box in boxes:
            box.stop()


def _found(box: Box, options: Sequence[str], corpus: Path, settings: Sequence[str] = ()) -> None:
    own = ["--data", str(corpus), "--state-dir", str(box.state_dir), "--host", "127.0.0.1"]
    box.start(["env", *settings, *SHOAL, "start", *options, *own])
    box.wait_for("^(ready)")


def _join(first: Box, box: Box, corpus: Path, options: Sequence[str] = ()) -> None:
    line = first.wait_for("^join with: shoal (.+)")
    own = ["--data", str(corpus), "--state-dir", str(box.state_dir), "--host", "127.0.0.1"]
    box.start([*SHOAL, *line.split(), *options, *own])
    box.wait_for("^(ready)")


def _corpus(folder: Path, base: Path) -> Path:
    texts = {"river": [f"a shoal of {number} fish swims up the river " * 6 for number in range(60)]}
    prepare_texts(texts, folder, Plan(tokenizer=base, context_length=CONTEXT))
    return folder


def _sealed(status: Status) -> int:
    return status.peers[0].rounds


ROWS = {"families": _families, "base_bytes": _base_bytes, "openai": _openai}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the rows that are asked for. Returns 1 when a bar does not hold."""
    options = argparse.ArgumentParser(description=__doc__, parents=[parser()])
    options.add_argument("--row", action="append", choices=list(ROWS), help="only this one; may be repeated")
    args = options.parse_args(argv)
    table = Table("row", "what", "found")
    bars: list[Bar] = []
    figures: dict[str, Any] = {"seeds": [0, 1, 3]}
    with tempfile.TemporaryDirectory(prefix="shoal-models-") as folder:
        for row in args.row or list(ROWS):
            place = Path(folder) / row
            place.mkdir()
            for what, found, held in ROWS[row](place, args.quick):
                print(f"{row}: {what}: {found}", file=sys.stderr, flush=True)
                table.add_row(row, what, json.dumps(found))
                figures.setdefault(row, {})[what] = found
                bars += held
    return finish(args, bars, figures, table=table)


if __name__ == "__main__":
    exit_with(main)
