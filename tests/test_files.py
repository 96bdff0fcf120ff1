"""A file that is being written is whole or not there."""

import errno
import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from tflens.files import move_whole, write_atomically, write_folder


def test_failure_keeps_the_old_content_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_success_replaces_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("old")

    def write(temporary):
        assert temporary.suffix == ".txt"
        assert temporary.parent == tmp_path
        assert path.read_text() == "old"
        temporary.write_text("new")

    write_atomically(path, write)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_mode_is_that_of_a_plain_file(tmp_path):
    plain, path = tmp_path / "plain.txt", tmp_path / "note.txt"
    plain.write_text("")
    write_atomically(path, lambda temporary: temporary.write_text(""))
    assert path.stat().st_mode == plain.stat().st_mode


@pytest.fixture
def on_disk(monkeypatch):
    """What the disk was made to hold, and what was renamed, in order."""
    done, names = [], {}
    opens, flush, replace = os.open, os.fsync, Path.replace

    def opened(path, *arguments, **options):
        handle = opens(path, *arguments, **options)
        names[handle] = str(path)
        return handle

    def fsync(handle):
        done.append(("flush", names[handle]))
        flush(handle)

    def renamed(source, target):
        done.append(("rename", str(target)))
        return replace(source, target)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", renamed)
    return done


class TestALossOfPower:
    """A name must not be on the disk before what it stands for, and is there when the call returns."""

    def test_file(self, on_disk, tmp_path):
        write_atomically(tmp_path / "note.txt", lambda temporary: temporary.write_text("new"))
        content, name, folder = on_disk
        assert content[0] == "flush"
        assert Path(content[1]).name.startswith(".note-")
        assert (name, folder) == (("rename", str(tmp_path / "note.txt")), ("flush", str(tmp_path)))

    def test_folder(self, on_disk, tmp_path):
        (tmp_path / "work/within").mkdir(parents=True)
        (tmp_path / "work/within/a").touch()
        move_whole(tmp_path / "work", tmp_path / "done")
        work = tmp_path / "work"
        assert {path for _, path in on_disk[:3]} == {str(path) for path in (work, work / "within", work / "within/a")}
        assert on_disk[3:] == [("rename", str(tmp_path / "done")), ("flush", str(tmp_path))]

    def test_folder_in_place_of_another(self, on_disk, tmp_path):
        for text in ("old", "new"):
            write_folder(tmp_path / "model", lambda folder, text=text: (folder / "weights").write_text(text))
        assert (tmp_path / "model/weights").read_text() == "new"
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
        assert on_disk.count(("rename", str(tmp_path / "model"))) == 2

    @pytest.mark.parametrize("refuses", [Path.is_dir, Path.is_file], ids=["folders", "files"])
    def test_where_folders_cannot_be_flushed_files_are(self, on_disk, tmp_path, monkeypatch, refuses):
        known = os.fsync

        def fsync(handle):
            known(handle)
            if refuses(Path(on_disk[-1][1])):
                raise OSError(errno.EINVAL, "Invalid argument")

        monkeypatch.setattr(os, "fsync", fsync)
        with nullcontext() if refuses is Path.is_dir else pytest.raises(OSError, match="Invalid argument"):
            write_atomically(tmp_path / "note.txt", lambda temporary: temporary.write_text("new"))
        assert (tmp_path / "note.txt").exists() == (refuses is Path.is_dir)
