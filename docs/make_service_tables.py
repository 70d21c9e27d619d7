"""Write the tables of docs/service.md that the code decides: controls of a request, and which of them give way.

python -m docs.make_service_tables

Each stands between two comments that name it; the prose around them is written by hand.
"""

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from config import PROJECT_ROOT, ServiceConfig
from docs.make_settings import shown
from serving.controls import RELAXED_IN_ORDER, Controls

PAGE = PROJECT_ROOT / "docs" / "service.md"


def controls_table() -> str:
    """A row per control: what it takes, its default (a setting of the service where there is one of that name), its meaning."""
    schema = Controls.model_json_schema()
    rows = [
        f"| `{name}` | {_taken(schema['properties'][name], schema)} | {_default(name, field.default)} | {field.description} |"
        for name, field in Controls.model_fields.items()
    ]
    return "\n".join(["| control | takes | default | meaning |", "|---|---|---|---|", *rows])


def relaxed_list() -> str:
    """The rules that give way, numbered in their order."""
    return "\n".join(f"{number}. `{name}`" for number, name in enumerate(RELAXED_IN_ORDER, start=1))


TABLES: Mapping[str, Callable[[], str]] = {"controls": controls_table, "relaxed": relaxed_list}


def page(text: str) -> str:
    """The page with its tables as the code has them.  Raises ValueError where a table has no place."""
    for name, table in TABLES.items():
        place = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)
        found = place.search(text)
        if found is None:
            raise ValueError(f"{PAGE.name} has no place for {name!r}: <!-- {name} --> and <!-- /{name} --> each on a line")
        text = f"{text[: found.start()]}{table()}\n{text[found.end() :]}"
    return text


def _default(name: str, default: Any) -> str:
    """The setting of that name with its default, else the control's own."""
    if hasattr(ServiceConfig, name):
        return f"setting: `{_plain(getattr(ServiceConfig, name))}`"
    return f"`{_plain(default)}`" if default not in (None, [], {}) else "none"


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else shown(value)


def _taken(part: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """What a field of a JSON schema accepts, in a few words; null is left out, as everything may be left out."""
    if "$ref" in part:
        return _taken(schema["$defs"][part["$ref"].rpartition("/")[2]], schema)
    if "anyOf" in part and {choice.get("type") for choice in part["anyOf"]} == {"integer", "string"}:
        return "id"
    if "anyOf" in part:
        return " or ".join(_taken(choice, schema) for choice in part["anyOf"] if choice.get("type") != "null")
    if "enum" in part:
        return " or ".join(f'`"{choice}"`' for choice in part["enum"])
    match part["type"]:
        case "array":
            return f"list of {_taken(part['items'], schema)}s"
        case "object":
            return "feature to `min`, `max`" if "additionalProperties" in part else "`min`, `max`"
        case "boolean":
            return "true or false"
        case "string":
            return f"text like `{part['pattern']}`" if "pattern" in part else f"text{_length(part)}"
        case kind:
            return f"{'whole number' if kind == 'integer' else 'number'}{_bounds(part)}"


def _bounds(part: Mapping[str, Any]) -> str:
    bounds = [("from", "minimum"), ("above", "exclusiveMinimum"), ("to", "maximum"), ("below", "exclusiveMaximum")]
    said = [f" {word} {part[name]:,}" for word, name in bounds if name in part]
    return "".join(said)


def _length(part: Mapping[str, Any]) -> str:
    return f" of up to {part['maxLength']} signs" if "maxLength" in part else ""


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
