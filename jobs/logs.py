"""Log lines for machines: one JSON object a line, in place of the sentence with name=value pairs."""

import logging
from typing import Any

from pythonjsonlogger.json import JsonFormatter

_NAMES = {"asctime": "time", "levelname": "level", "name": "logger"}


class JSONLines(JsonFormatter):
    """{"time", "level", "logger", "message"} and the record's fields beside them; a traceback is `exc_info`."""

    default_msec_format = "%s.%03d"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=_NAMES)

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Lift the fields out of their own object; what has no value stays out."""
        fields = log_data.pop("fields", {})
        return log_data | {name: value for name, value in fields.items() if value is not None}


def write_json_lines() -> None:
    """Let all handlers of the root logger write JSON."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JSONLines())
