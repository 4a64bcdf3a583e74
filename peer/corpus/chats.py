"""How turns are written: the formats of chats that models know, and the prompt format of a task as a chat of one turn.

What a format writes around a turn may be special tokens; what stands in a turn never is. The same turns as a template
for Transformers (`template`) give the same tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from configs.corpus import INPUT, ChatFormat, TaskFormat
from configs.errors import DataError

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"

Turn = tuple[str, str]  # role, text


@dataclass(frozen=True)
class Form:
    """What stands before and after the turn of each role. A role that has no place here is said by the user."""

    opens: Mapping[str, str]
    closes: Mapping[str, str]  # of the assistant's turns: what follows their end
    lead: str = ""  # what each text begins with: read with it, since tokenizers join a space with the word after it
    begin: str = ""  # before the first turn
    end: str = ""  # the token that ends the assistant's turns and is learnt with them; empty: the end of the text
    special: tuple[str, ...] = ()  # the tokens that it is written with; empty: none, all of it is text


def _tagged(before: str, after: str, **more: str) -> Mapping[str, str]:
    return {role: f"{before}{more.get(role, role)}{after}" for role in (SYSTEM, USER, ASSISTANT)}


FORMS: Mapping[ChatFormat, Form] = {
    "chatml": Form(
        _tagged("<|im_start|>", "\n"),
        {SYSTEM: "<|im_end|>\n", USER: "<|im_end|>\n", ASSISTANT: "\n"},
        end="<|im_end|>",
        special=("<|im_start|>", "<|im_end|>"),
    ),
    "llama3": Form(
        _tagged("<|start_header_id|>", "<|end_header_id|>\n\n"),
        {SYSTEM: "<|eot_id|>", USER: "<|eot_id|>", ASSISTANT: ""},
        begin="<|begin_of_text|>",
        end="<|eot_id|>",
        special=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "mistral": Form(
        {USER: "[INST]", ASSISTANT: ""},
        {USER: " [/INST]", ASSISTANT: ""},
        lead=" ",
        begin="<s>",
        end="</s>",
        special=("<s>", "</s>"),
    ),
    "gemma": Form(
        {USER: "<start_of_turn>user\n", ASSISTANT: "<start_of_turn>model\n"},
        {USER: "<end_of_turn>\n", ASSISTANT: "\n"},
        begin="<bos>",
        end="<end_of_turn>",
        special=("<bos>", "<start_of_turn>", "<end_of_turn>"),
    ),
    "plain": Form(
        {SYSTEM: "System:\n", USER: "User:\n", ASSISTANT: "Assistant:\n"},
        {SYSTEM: "\n", USER: "\n", ASSISTANT: "\n"},
    ),
}


def form_of(task: TaskFormat) -> Form:
    """Return how the turns of a task are written; a prompt format has one, around what it calls the input."""
    if task.chat is not None:
        return FORMS[task.chat]
    before, after = task.prompt.split(INPUT)
    return Form({USER: before, ASSISTANT: ""}, {USER: after, ASSISTANT: ""})


def placed(turns: Sequence[Turn], form: Form) -> list[Turn]:
    """Return the turns with a role that the form knows: what a system said stands before what the user says next."""
    if SYSTEM in form.opens or not turns or turns[0][0] != SYSTEM:
        return list(turns)
    (_, system), (role, text), *rest = turns
    return [(role, f"{system}\n\n{text}"), *rest]


def check_turns(turns: Sequence[Turn]) -> None:
    """Raise DataError unless user and assistant speak in turn, perhaps after a system, and the assistant last."""
    has_system = bool(turns) and turns[0][0] == SYSTEM
    spoken = [role for role, _ in turns[int(has_system) :]]
    if not spoken or spoken != [USER, ASSISTANT] * (len(spoken) // 2):
        raise DataError(
            "the turns must be user and assistant one after the other, a system may come before them, and the "
            f"assistant speaks last; here they are {', '.join(role for role, _ in turns) or 'none'}"
        )


def template(form: Form) -> str:
    """Return the form as a chat template of Transformers, which writes what an encoder reads."""
    lines = [f"{{{{ {_quoted(form.begin)} }}}}"] if form.begin else []
    merges = SYSTEM not in form.opens
    lines.append("{%- set told = namespace(system='') %}" if merges else "")
    lines.append("{%- for message in messages %}")
    if merges:
        lines.append(
            "{%- if message['role'] == 'system' %}{%- set told.system = message['content'] + '\\n\\n' %}{%- endif %}"
        )
    for role, before in form.opens.items():
        content = "told.system + message['content']" if merges and role == USER else "message['content']"
        end = f" + {_quoted(form.end) if form.end else 'eos_token'}" if role == ASSISTANT else ""
        after = form.closes[role]
        lines.append(f"{{%- if message['role'] == '{role}' %}}")
        lines.append(f"{{{{- {_quoted(before + form.lead)} + {content}{end} + {_quoted(after)} }}}}")
        lines.append("{%- set told.system = '' %}" if merges and role == USER else "")
        lines.append("{%- endif %}")
    lines.append("{%- endfor %}")
    lines.append(f"{{%- if add_generation_prompt %}}{{{{- {_quoted(form.opens[ASSISTANT])} }}}}{{%- endif %}}")
    return "".join(lines)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("\n", "\\n").replace("'", "\\'") + "'"
