"""Writes `src/types.ts`: the TypeScript of what the daemon's documented paths give, from the same pydantic models.

    python -m peer.web.generate_types

A test holds that the file is current.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from peer.http.history import AnswersHistory, Curves, Rounds, Share
from peer.http.paths import Paths
from peer.http.view import View

MODELS: tuple[type[BaseModel], ...] = (View, Curves, Rounds, AnswersHistory, Share, Paths)
FILE = Path(__file__).parent / "src" / "types.ts"
PLAIN = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


def typescript() -> str:
    """Return the whole file."""
    _, schema = models_json_schema([(model, "serialization") for model in MODELS])
    interfaces = [_interface(name, body) for name, body in sorted(schema["$defs"].items())]
    return "// Written by generate_types.py from the daemon's models; do not edit.\n\n" + "\n\n".join(interfaces) + "\n"


def _interface(name: str, body: dict[str, Any]) -> str:
    fields = "".join(f"  {field}: {_type(kind)};\n" for field, kind in body["properties"].items())
    return f"export interface {name} {{\n{fields}}}"


def _type(schema: dict[str, Any]) -> str:
    match schema:
        case {"$ref": reference}:
            return str(reference).rpartition("/")[2]
        case {"enum": values}:
            return " | ".join(f'"{value}"' for value in values)
        case {"anyOf": choices}:
            return " | ".join(map(_type, choices))
        case {"type": "array", "prefixItems": items}:
            return f"[{', '.join(map(_type, items))}]"
        case {"type": "array", "items": item}:
            inner = _type(item)
            return f"({inner})[]" if " | " in inner else f"{inner}[]"
        case {"type": "object", "additionalProperties": value}:
            return f"Record<string, {_type(value)}>"
        case {"type": kind}:
            return PLAIN[kind]
    raise TypeError(f"no TypeScript for {schema}")


if __name__ == "__main__":
    FILE.write_text(typescript(), encoding="utf-8")
