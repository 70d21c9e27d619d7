"""A write that fails is one clear line."""

import pytest

from engine.files import writing
from errors import CheckpointError


def test_what_torch_says_of_a_full_disk_is_put_into_words(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.files.shutil.disk_usage", lambda path: type("Usage", (), {"free": 2_000_000}))
    words = r"the disk is full: 2 MB are free\): the last good checkpoint stays"
    with pytest.raises(CheckpointError, match=words), writing(tmp_path / "epoch-003"):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 3579776 vs 3579668")
