"""What makes a folder of a model one for chats: how turns are written, and at which token an answer ends."""

import json
from pathlib import Path

from tokenizers import Tokenizer

from configs.corpus import ChatFormat
from configs.files import read_json
from peer.corpus.chats import FORMS, template

TEMPLATE_FILE = "chat_template.jinja"
SAY_ENDS = ("config.json", "generation_config.json")


def write_chat_files(folder: Path, chat: ChatFormat, tokenizer: Tokenizer) -> None:
    """Give a model that was trained on chats their template, unless it brought one, and let it end where turns do.

    What a pretrained model says of its ends stays; the token that ends a turn is added to it.
    """
    form = FORMS[chat]
    said = read_json(folder / "tokenizer_config.json") or {}
    if "chat_template" not in said and not (folder / TEMPLATE_FILE).exists():
        (folder / TEMPLATE_FILE).write_text(template(form), encoding="utf-8")
    end = tokenizer.token_to_id(form.end) if form.end else None
    for name in SAY_ENDS:
        config = read_json(folder / name)
        if config is None or end is None:
            continue
        ends = config.get("eos_token_id")
        ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
        if end not in ends:
            config["eos_token_id"] = [*ends, end]
            (folder / name).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
