"""Where the values of the settings come from, and how they are stored; the only reader of the environment.

A value comes from the first of these that names it:

1. the command line            ``--lr 0.001``, ``--d-songs 64``  (options.py)
2. the environment             ``BERT4MUSICREC_LR=0.001``
3. a TOML file                 ``[training]`` / ``lr = 0.001`` in ``bert4musicrec.toml`` or ``--config FILE``
4. the default in config.py

A name that nothing knows is refused with the nearest name that exists.
"""

import dataclasses
import difflib
import math
import os
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from config import FIELDS, SECTIONS, Config
from database_urls import database_url_from, without_password
from errors import ConfigError

DEFAULT_CONFIG_FILE = "bert4musicrec.toml"
ENVIRONMENT_PREFIX = "BERT4MUSICREC_"
API_KEY_VARIABLE = f"{ENVIRONMENT_PREFIX}API_KEY"  # no setting: what a client of the service, as `health.py`, sends


def load_config(
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Config:
    """Gather settings from defaults, file, environment and overrides (in rising order) and check them.

    `file` None reads `bert4musicrec.toml` in the working directory if there is one.  `environ` None is the process's own.
    `overrides` maps names of settings to values, None meaning "not given"; `defaults` replaces defaults of the dataclasses.
    Raises ConfigError with the name and the way out.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for name, value in (defaults or {}).items():
        values[FIELDS[name][0]][name] = value
    for section, name, value in _from_file(file):
        values[section][name] = value
    url = database_url_from(environ)
    if url is not None:
        values["database"]["url"] = url
    for variable, text in environ.items():
        if variable.startswith(ENVIRONMENT_PREFIX) and variable != API_KEY_VARIABLE:
            name = _known_name(variable.removeprefix(ENVIRONMENT_PREFIX), f"environment variable {variable}")
            values[FIELDS[name][0]][name] = text
    for name, value in (overrides or {}).items():
        if value is not None:
            values[FIELDS[_known_name(name, "setting")][0]][name] = value
    return Config(**{section: build_section(SECTIONS[section], given) for section, given in values.items()})


Section = TypeVar("Section")


def build_section(cls: type[Section], given: Mapping[str, Any]) -> Section:
    """Make one settings dataclass from plain values (texts are converted), refusing unknown names."""
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(given) - set(hints))
    if unknown:
        raise ConfigError(f"unknown setting {unknown[0]!r}: {nearest(unknown[0], hints)}")
    return cls(**{name: _convert(name, value, hints[name]) for name, value in given.items()})


def as_plain(settings: Any) -> dict[str, Any]:
    """A settings dataclass as plain JSON values, without passwords; the inverse of `build_section` for one concern."""
    plain: dict[str, Any] = {}
    for setting in dataclasses.fields(settings):
        value = getattr(settings, setting.name)
        if dataclasses.is_dataclass(value):
            plain[setting.name] = as_plain(value)
        elif setting.name == "url" and value is not None:
            plain[setting.name] = without_password(value)
        else:
            plain[setting.name] = str(value) if isinstance(value, Path) else value
    return plain


def nearest(name: str, known: Iterable[str]) -> str:
    """The way out for a name that nothing knows: the known one most like it, or else all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"


def _from_file(file: Path | None) -> Iterable[tuple[str, str, Any]]:
    path = Path(DEFAULT_CONFIG_FILE) if file is None else file
    if not path.is_file():
        if file is not None:
            raise ConfigError(f"settings file {path} does not exist")
        return
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"settings file {path} is not valid TOML: {exc}") from exc
    for section, settings in content.items():
        if section not in SECTIONS or not isinstance(settings, dict):
            raise ConfigError(f"unknown section [{section}] in {path}: {nearest(section, SECTIONS)}")
        names = [setting.name for setting in dataclasses.fields(SECTIONS[section])]
        for name, value in settings.items():
            if name not in names:
                raise ConfigError(f"unknown setting {name!r} in [{section}] of {path}: {nearest(name, names)}")
            yield section, name, value


def _known_name(name: str, origin: str) -> str:
    by_folded_name = {known.lower(): known for known in FIELDS}
    if name.lower() not in by_folded_name:
        raise ConfigError(f"unknown {origin}: {nearest(name.lower(), by_folded_name)}")
    return by_folded_name[name.lower()]


def _convert(name: str, value: Any, hint: Any) -> Any:
    """Turn a TOML value or a text into the field's type, or say which type it should have been."""
    options: Sequence[Any] = (hint,)
    if isinstance(hint, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        if value is None or (isinstance(value, str) and value.lower() in ("", "none")):
            return None
    wanted = options[0]
    if typing.get_origin(wanted) is Literal:
        choices = typing.get_args(wanted)
        if value not in choices:
            raise ConfigError(f"{name} must be one of {', '.join(map(repr, choices))} (got {value!r})")
        return value
    if wanted is bool:
        truth = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if isinstance(value, bool):
            return value
        if str(value).lower() in truth:
            return truth[str(value).lower()]
        raise ConfigError(f"{name} must be true or false (got {value!r})")
    if wanted in (int, float) and isinstance(value, bool):
        raise ConfigError(f"{name} must be a number (got {value!r})")
    try:
        converted = wanted(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise ConfigError(f"{name} must be {_article(wanted)} (got {value!r})") from exc
    if wanted is int and isinstance(value, float) and converted != value:
        raise ConfigError(f"{name} must be a whole number (got {value!r})")
    if wanted is float and not math.isfinite(converted):
        raise ConfigError(f"{name} must be a finite number (got {value!r})")
    return converted


def _article(wanted: type) -> str:
    return {int: "a whole number", float: "a number", Path: "a path", str: "a text"}[wanted]
