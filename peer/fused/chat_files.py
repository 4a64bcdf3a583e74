"""What makes a folder of a model one for chats: how turns are written, and at which token an answer ends."""

import json
from pathlib import Path

from tokenizers import Tokenizer

from configs.corpus import ChatFormat
from configs.errors import DataError
from configs.files import read_json
from peer.corpus.chats import FORMS, template

WORDS_FILE = "tokenizer_config.json"  # what tokens mean
TEMPLATE_FILE = "chat_template.jinja"
SAY_ENDS = ("config.json", "generation_config.json")
REMEDY = "take a copy of the model"


def template_of(folder: Path) -> str | None:
    """Return the chat template in a model's directory, None if there is none. Raises DataError: a damaged one."""
    said = read_json(folder / WORDS_FILE, REMEDY, DataError)
    if said is None:
        return None
    try:
        own = folder / TEMPLATE_FILE
        found = own.read_text(encoding="utf-8") if own.is_file() else said.get("chat_template")
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: the chat template cannot be read ({error}); mend or remove it") from None
    if isinstance(found, list):  # several, by name
        found = next((each.get("template") for each in found if each.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def write_chat_files(folder: Path, chat: ChatFormat, tokenizer: Tokenizer) -> None:
    """Give a model that was trained on chats their template, unless it brought one, and let it end where turns do.

    What a pretrained model says of its ends stays; the token that ends a turn is added to it.
    """
    form = FORMS[chat]
    said = read_json(folder / WORDS_FILE) or {}
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
