"""The set of encoders on disk, against interruption and tampering."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from uuid import UUID

import joblib
import pandas as pd
import pytest

import encoder_files
from encoder_files import Encoders, encoders_digest, load_encoders, save_encoders
from errors import EncoderError
from preprocessing_utils import FeatureEncoder, IdEncoder

FIRST, SECOND = (UUID(int=number) for number in (1, 2))


def encoders_of(*songs: object) -> Encoders:
    frame = pd.DataFrame({"tempo": [100.0, 140.0]})
    return Encoders(
        songs=IdEncoder("song").fit(list(songs)),
        albums=IdEncoder("album").fit(["album"]),
        artists=IdEncoder("artist"),
        features=FeatureEncoder().fit(frame),
    )


def test_a_saved_set_comes_back_whole(tmp_path):
    digest = save_encoders(encoders_of(FIRST, SECOND), tmp_path)
    loaded = load_encoders(tmp_path, digest)
    assert loaded.songs.decode([3, 4]) == [FIRST, SECOND]
    assert loaded.albums.encode(["album", "other"]).tolist() == [3, 2]
    assert len(loaded.artists) == 3
    assert loaded.features.encode(pd.DataFrame({"tempo": [140.0]})).tolist() == [[1, 0]]


def test_a_saved_encoder_names_the_module_that_it_always_did(tmp_path):
    save_encoders(encoders_of("a"), tmp_path)
    for kind, name in (("songs", b"IdEncoder"), ("features", b"FeatureEncoder")):
        (path,) = tmp_path.glob(f"{kind}-*.joblib")
        assert re.search(rb"preprocessing_utils.{1,8}" + name, path.read_bytes(), re.DOTALL)


def test_the_digest_is_the_manifests_and_the_same_for_the_same_set(tmp_path):
    digests = {save_encoders(encoders_of("a", "b"), tmp_path / name) for name in ("one", "two")}
    manifest = hashlib.sha256((tmp_path / "one" / "manifest.json").read_bytes()).hexdigest()
    assert digests == {manifest} == {encoders_digest(tmp_path / "one")}


def test_a_new_set_takes_the_place_of_the_old_one_and_of_nothing_else(tmp_path):
    (tmp_path / "README.md").write_text("stays")
    save_encoders(encoders_of("old"), tmp_path)
    save_encoders(encoders_of("new"), tmp_path)
    assert load_encoders(tmp_path).songs.decode([3]) == ["new"]
    files = [entry["file"] for entry in json.loads((tmp_path / "manifest.json").read_text())["files"].values()]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(["README.md", "manifest.json", *files])


def test_another_set_than_expected_is_refused(tmp_path):
    expected = save_encoders(encoders_of("a"), tmp_path)
    save_encoders(encoders_of("b"), tmp_path)
    with pytest.raises(EncoderError, match=f"are not those that were asked for \\(digest {expected[:12]}\\)"):
        load_encoders(tmp_path, expected)


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def put_trap(folder: Path, trap: Path) -> None:
    file = next(folder.glob("songs-*.joblib"))
    joblib.dump(Trap(trap), file)


def test_a_tampered_file_is_refused_before_it_is_opened(tmp_path):
    trap = tmp_path / "sprung"
    digest = save_encoders(encoders_of("a"), tmp_path / "set")
    put_trap(tmp_path / "set", trap)
    for expected in (digest, None):
        with pytest.raises(
            EncoderError, match=r"songs-.*\.joblib in .* does not match its digest, so the songs encoder was not opened"
        ):
            load_encoders(tmp_path / "set", expected)
    assert not trap.exists()


def test_a_forged_manifest_does_not_help_a_tampered_file(tmp_path):
    trap = tmp_path / "sprung"
    digest = save_encoders(encoders_of("a"), tmp_path / "set")
    put_trap(tmp_path / "set", trap)
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    songs = manifest["files"]["songs"]
    songs["sha256"] = hashlib.sha256((tmp_path / "set" / songs["file"]).read_bytes()).hexdigest()
    (tmp_path / "set" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EncoderError, match="are not those that were asked for"):
        load_encoders(tmp_path / "set", digest)
    assert not trap.exists()


def test_the_trap_of_these_tests_would_spring(tmp_path):
    joblib.dump(Trap(tmp_path / "sprung"), tmp_path / "trap.joblib")
    joblib.load(tmp_path / "trap.joblib")
    assert (tmp_path / "sprung").exists()


def test_an_interruption_before_the_manifest_leaves_the_old_set_in_use(tmp_path, monkeypatch):
    digest = save_encoders(encoders_of("old"), tmp_path)
    replace = Path.replace

    def replace_all_but_the_manifest(self, target):
        if target.name == "manifest.json":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replace_all_but_the_manifest)
    with pytest.raises(KeyboardInterrupt):
        save_encoders(encoders_of("new"), tmp_path)
    assert load_encoders(tmp_path, digest).songs.decode([3]) == ["old"]


def test_a_full_disk_leaves_the_old_set_in_use_and_no_draft(tmp_path, monkeypatch):
    digest = save_encoders(encoders_of("old"), tmp_path)
    before = sorted(tmp_path.iterdir())

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encoder_files, "_write_through", no_space)
    with pytest.raises(EncoderError, match=r"could not be written \(No space left on device\); the old ones stay in use"):
        save_encoders(encoders_of("new"), tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    assert load_encoders(tmp_path, digest).songs.decode([3]) == ["old"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format_version": 1, "files": {}}'])
def test_a_damaged_manifest_is_refused(tmp_path, content):
    save_encoders(encoders_of("a"), tmp_path)
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(EncoderError, match=r"manifest.json is damaged \(.*\): run preprocessing.py"):
        load_encoders(tmp_path)


def test_a_set_of_another_format_is_refused(tmp_path):
    save_encoders(encoders_of("a"), tmp_path)
    (tmp_path / "manifest.json").write_text('{"format_version": 99}')
    with pytest.raises(EncoderError, match="have format 99, this version reads 1"):
        load_encoders(tmp_path)


def test_missing_encoders_are_an_error_that_says_how_to_make_them(tmp_path):
    with pytest.raises(
        EncoderError, match=r"no encoders in .* \(manifest.json: No such file or directory\): run preprocessing.py"
    ):
        load_encoders(tmp_path / "nowhere")
    save_encoders(encoders_of("a"), tmp_path)
    next(tmp_path.glob("albums-*.joblib")).unlink()
    with pytest.raises(EncoderError, match=r"no encoders in .* \(albums-.*: No such file or directory\)"):
        load_encoders(tmp_path)


def test_a_set_can_be_copied_to_a_run_and_keeps_its_digest(tmp_path):
    digest = save_encoders(encoders_of("a"), tmp_path / "set")
    shutil.copytree(tmp_path / "set", tmp_path / "run")
    assert load_encoders(tmp_path / "run", digest).songs.decode([3]) == ["a"]
