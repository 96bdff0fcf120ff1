"""A file that is being written is whole or not there."""

import pytest

from tflens.files import write_atomically


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
