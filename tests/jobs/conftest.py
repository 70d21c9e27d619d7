"""Workers behind pgbouncer poll, as `docs/database.md` says."""

import pytest

from tests.jobs import world


@pytest.fixture(autouse=True)
def _woken_as_documented(request, monkeypatch):
    spec = getattr(request.node, "callspec", None)
    if spec is not None and spec.params.get("way") == "pgbouncer":
        monkeypatch.setattr(world, "WAKE", "poll")
