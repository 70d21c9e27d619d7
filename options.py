"""Every setting as an option of the command line, the line below its field as its help; and what `--demo` changes."""

import argparse
import ast
import dataclasses
import functools
import inspect
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config import FIELDS, PROJECT_ROOT, SECTIONS, Config, DatabaseConfig
from errors import ConfigError
from settings import DEFAULT_CONFIG_FILE, load_config, nearest

# Where everything of the demo stands unless the settings say so: apart from one's own music, models and snapshot.
DEMO_FOLDER = PROJECT_ROOT / ".local" / "demo"
DEMO_SETTINGS: Mapping[str, Any] = {
    "embedded_database": "demo",
    "snapshot": DEMO_FOLDER / "snapshot",
    "encoders_folder": DEMO_FOLDER / "encoders",
    "model_folder": DEMO_FOLDER / "models",
}


def add_arguments(parser: argparse.ArgumentParser, *sections: str) -> None:
    """Add --config, --demo and one option per setting of the named concerns, with its meaning and default in the help."""
    if not any(action.dest == "config" for action in parser._actions):
        where = f"TOML settings file (default {DEFAULT_CONFIG_FILE}, if there is one)"
        parser.add_argument("--config", type=Path, metavar="FILE", help=where)
        what = f"use the demo's database on the embedded server, and its folders in {_shorten(DEMO_FOLDER)}"
        parser.add_argument("--demo", action="store_true", help=what)
        parser.allow_abbrev = False  # a cut name would be taken for the whole one, until there are two that begin so
        parser.error = functools.partial(_refuse_arguments, parser)  # type: ignore[method-assign]
    for section in sections:
        group = parser.add_argument_group(section)
        meanings = describe(SECTIONS[section])
        for setting in dataclasses.fields(SECTIONS[section]):
            option = "--" + setting.name.replace("_", "-")
            aliases = {option, "--" + setting.name, option.lower()}
            shown = "" if setting.default is None else f" (default {_shorten(setting.default)})"
            group.add_argument(
                *sorted(aliases, key=lambda alias: alias != option),
                dest=setting.name,
                metavar=setting.name.upper(),
                help=(meanings[setting.name] + shown).replace("%", "%%"),
            )


def _refuse_arguments(parser: argparse.ArgumentParser, message: str) -> typing.NoReturn:
    """One line instead of argparse's page of usage, with the nearest option where one is unknown."""
    unknown = message.removeprefix("unrecognized arguments: ").split()[0]
    if unknown != message.split()[0] and unknown.startswith("-"):
        options = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
        raise ConfigError(f"unknown option {unknown}: {nearest(unknown.split('=')[0], options)}")
    raise ConfigError(f"{message}; {parser.prog} --help tells the options")


def config_from_arguments(arguments: argparse.Namespace) -> Config:
    """The settings of a command whose parser was filled by `add_arguments`."""
    given = {name: value for name, value in vars(arguments).items() if name in FIELDS}
    if not arguments.demo:
        return load_config(file=arguments.config, overrides=given)
    # The demo stands in the schema `music`, whatever tables somebody's queries read.
    given["queries_folder"] = DatabaseConfig.queries_folder
    return load_config(file=arguments.config, overrides=given, defaults=DEMO_SETTINGS)


@functools.cache
def describe(cls: type) -> dict[str, str]:
    """The line under each field of a settings dataclass, by name: the one place where a setting's meaning stands."""
    definition = ast.parse(inspect.getsource(cls)).body[0]
    assert isinstance(definition, ast.ClassDef)
    meanings: dict[str, str] = {}
    for before, after in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name) and isinstance(after, ast.Expr):
            assert isinstance(after.value, ast.Constant)
            meanings[before.target.id] = str(after.value.value)
    return meanings


def _shorten(default: Any) -> str:
    return str(default).removeprefix(f"{PROJECT_ROOT}{os.sep}")
