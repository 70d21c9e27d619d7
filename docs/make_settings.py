"""Write docs/settings.md: every setting with its default and its meaning, from the dataclasses of config.py.

python -m docs.make_settings
"""

import dataclasses
import inspect
import os
import sys
from typing import Any

from config import PROJECT_ROOT, SECTIONS
from options import describe
from settings import DEFAULT_CONFIG_FILE, ENVIRONMENT_PREFIX

PAGE = PROJECT_ROOT / "docs" / "settings.md"

HEAD = f"""\
# Settings

Written by `python -m docs.make_settings` from `config.py`; a test holds the two together. The table of the original project's
names, with reasons for each default, is in [README.md](../README.md#settings).

A value comes from the first of these that names it:

1. the command line: `--lr 0.001`, `--d-songs 64` (each command's `--help` lists the options that it reads)
2. the environment: `{ENVIRONMENT_PREFIX}LR=0.001`
3. a TOML file, `{DEFAULT_CONFIG_FILE}` in the working directory or `--config FILE`: `[training]`, then `lr = 0.001`
4. the default below

Default paths are below the project's folder. An unknown name is refused with the nearest one that exists.
"""


def page() -> str:
    """The whole page: a section per concern, a row per setting."""
    return "\n".join([HEAD, *(_section(name, cls) for name, cls in SECTIONS.items())])


def shown(default: Any) -> str:
    """A default as the tables show it: paths from the project's folder, `none` where nothing is set."""
    return "none" if default is None else str(default).removeprefix(f"{PROJECT_ROOT}{os.sep}")


def _section(name: str, cls: type) -> str:
    meanings = describe(cls)
    rows = [f"| `{field.name}` | `{shown(field.default)}` | {meanings[field.name]} |" for field in dataclasses.fields(cls)]
    return "\n".join(
        [f"## [{name}]", "", inspect.getdoc(cls) or "", "", "| setting | default | meaning |", "|---|---|---|", *rows, ""]
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)
