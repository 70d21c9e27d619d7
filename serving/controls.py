"""What a listener may ask of an answer: how many songs, which ones not, how varied, in which order.

`Controls` are the options of a request, the same over HTTP (fields of the body) and in SQL (keys of the options); a control that
is not given takes the service's setting.  `Rules` are what came out of that, with nothing left open.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from config import ServiceConfig
from errors import InvalidSequence

# Rules that give way, in this order, when an answer would otherwise have fewer songs than were asked for.  Everything else holds:
# an answer is then shorter.
RELAXED_IN_ORDER = ("artist_spacing", "max_per_artist", "skipped", "exclude_played_days", "ranges")

LONGEST_ECHO = 60  # signs of a refused value that its error message repeats
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def _an_id(value: Any) -> Any:
    """One message for what would otherwise be told twice, once per type."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("an id is an integer or a text")  # noqa: TRY004  (pydantic turns a ValueError into its own error)
    if isinstance(value, str) and _UNSTORABLE.search(value):
        raise ValueError("an id is a text that PostgreSQL can hold, without NUL and surrogates")
    return value


def storable(value: Any) -> Any:
    """A value as it is, for pydantic to go on with; raises ValueError for a text that PostgreSQL cannot hold."""
    if isinstance(value, str) and _UNSTORABLE.search(value):
        raise ValueError("a text that PostgreSQL can hold has neither NUL nor surrogates")
    return value


Id = Annotated[int | str, BeforeValidator(_an_id)]
Listener = Annotated[str, BeforeValidator(storable), Field(min_length=1, max_length=255)]


class Range(BaseModel):
    """Bounds of a feature, both included, in its own unit (tempo in beats a minute, duration_ms in milliseconds)."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    min: float | None = Field(None, allow_inf_nan=False)
    max: float | None = Field(None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _some_values_are_inside(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError('a range has "min", "max" or both')
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min ({self.min:g}) is above max ({self.max:g})")
        return self


class Controls(BaseModel):
    """Options of a request; None takes the service's setting of that name."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    count: int | None = Field(None, description="how many songs to recommend")
    exclude: list[Id] = Field([], description="songs that must not be recommended")
    listener: Listener | None = Field(None, description="whose feedback counts: blocks, skips and plays")
    exclude_played_days: float | None = Field(
        None, ge=0, le=36_500, allow_inf_nan=False, description="leave out what the listener played within so many days"
    )
    max_per_artist: int | None = Field(
        None, ge=0, le=1_000_000, description="songs of one artist, one less for an artist of the newest songs; 0: no bound"
    )
    artist_spacing: int | None = Field(None, ge=0, le=1_000, description="songs of others between two of one artist; 0: no bound")
    one_per_recording: bool | None = Field(None, description="only one edition of a recording")
    discovery: float | None = Field(
        None, ge=0, le=1, allow_inf_nan=False, description="from 0, well-known songs first, to 1, little-known songs first"
    )
    temperature: float | None = Field(
        None, ge=0, le=10, allow_inf_nan=False, description="chance: 0 none; 1 draws songs as often as the model expects them"
    )
    seed: int | None = Field(
        None, ge=0, le=2**53 - 1, description="with temperature: the same seed draws the same songs; the answer names it"
    )
    ranges: dict[str, Range] = Field(
        {}, max_length=32, description='bounds of numeric features, as in {"tempo": {"min": 90, "max": 120}}'
    )
    allow_explicit: bool | None = Field(None, description="false leaves out songs that are marked explicit")
    only: list[Id] | None = Field(None, description="recommend nothing but these songs")
    filter: str | None = Field(
        None, pattern=r"^[a-z][a-z0-9_]{0,62}$", description="recommend only songs of this named filter (filters/NAME.sql)"
    )
    order: Literal["score", "flow"] | None = Field(None, description="best first within the rules, or by tempo and key")
    min_confidence: float | None = Field(
        None, ge=0, lt=1, allow_inf_nan=False, description="leave out songs that the model expects with less probability"
    )
    explain: bool = Field(False, description="also name the songs that each recommendation is because of")

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> Self:
        """The controls that a request's options in SQL ask for; null stands for what is not given.

        Raises InvalidSequence, in one line with the option, for those that mean nothing.
        """
        try:
            return cls.model_validate({name: value for name, value in options.items() if value is not None})
        except ValidationError as exc:
            raise InvalidSequence(explained(exc, cls, "option")) from exc

    def as_options(self) -> dict[str, Any]:
        """What was given, as the options of a request: what was not asked for stays out, so that equal questions are equal."""
        return self.model_dump(exclude_defaults=True, mode="json")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The controls of one answer, with the service's settings filled in."""

    count: int
    max_per_artist: int
    artist_spacing: int
    one_per_recording: bool
    discovery: float | None
    temperature: float
    seed: int | None
    exclude_played_days: float
    skipped_days: float
    ranges: Mapping[str, Range]
    allow_explicit: bool
    order: Literal["score", "flow"]
    min_confidence: float

    @classmethod
    def of(cls, controls: Controls, config: ServiceConfig) -> Self:
        """Fill in what the controls leave open.  Raises InvalidSequence for a count out of bounds."""

        def given(name: str) -> Any:
            value = getattr(controls, name)
            return getattr(config, name) if value is None else value

        return cls(
            count=checked_count(controls.count, config),
            max_per_artist=given("max_per_artist"),
            artist_spacing=given("artist_spacing"),
            one_per_recording=given("one_per_recording"),
            discovery=given("discovery"),
            temperature=given("temperature"),
            seed=controls.seed,
            exclude_played_days=given("exclude_played_days"),
            skipped_days=config.skipped_days,
            ranges=controls.ranges,
            allow_explicit=given("allow_explicit"),
            order=given("order"),
            min_confidence=given("min_confidence"),
        )


def checked_count(count: int | None, config: ServiceConfig) -> int:
    """How many songs to recommend: the setting's number when the query names none.  Raises InvalidSequence out of bounds."""
    count = config.count if count is None else count
    if not 1 <= count <= config.max_count:
        raise InvalidSequence(f"count must be between 1 and {config.max_count} (got {count})")
    return count


def explained(exc: ValidationError, model: type[BaseModel], noun: str = "field") -> str:
    """The first thing that is wrong with a body or with options, in one line; the whole list would repeat it for every song."""
    first = exc.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        return f"unknown {noun} {place!r}: known are {', '.join(model.model_fields)}"
    if not place:
        return said
    return f"{place}: {said} (got {echo(first['input'])})"


def echo(value: Any) -> str:
    """A refused value, shortened."""
    text = repr(value) if not isinstance(value, str) else f'"{value}"'
    return text if len(text) <= LONGEST_ECHO else f"{text[: LONGEST_ECHO - 3]}..."
