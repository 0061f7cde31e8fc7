import errno

import pytest

from ctmar.errors import OutputExistsError
from ctmar.files import CORRECTION, PATCHES, building, claimed, refuse_existing, remove_partial, replacing
from tests.ctmar.small import tree


def fill(folder, text):
    (folder / "a.txt").write_text(text)
    (folder / "sub").mkdir()
    (folder / "sub" / "b.txt").write_text(text)


def write_half(partial, error):
    if partial.is_dir():
        fill(partial, "half")
    else:
        partial.write_text("half")
    raise error


@pytest.fixture
def old(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    fill(folder, "old")
    (folder / "report.json").write_text("old")
    return folder


def test_replacing_shows_the_file_only_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "deep" / "file.txt"
    with replacing(path) as partial:
        partial.write_text("half")
        assert partial.parent == path.parent
        assert partial.name.startswith(".")
        assert not path.exists()
    assert tree(tmp_path).keys() == {"new", "new/deep", "new/deep/file.txt"}
    assert path.read_text() == "half"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), SystemExit()])
def test_replacing_leaves_the_old_file_alone_after_an_error(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")
    before = tree(tmp_path)
    with pytest.raises(type(error)), replacing(path) as partial:
        write_half(partial, error)
    assert tree(tmp_path) == before


def test_replacing_gives_back_the_folders_that_it_made(tmp_path):
    with pytest.raises(ValueError, match="no"), replacing(tmp_path / "new" / "deep" / "file.txt"):
        raise ValueError("no")
    assert tree(tmp_path) == {}


def test_building_makes_a_whole_folder(tmp_path):
    with building(tmp_path / "new" / "out", kind=CORRECTION) as folder:
        fill(folder, "new")
        assert not (tmp_path / "new" / "out").exists()
    assert tree(tmp_path).keys() == {"new", "new/out", "new/out/a.txt", "new/out/sub", "new/out/sub/b.txt"}


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(143)])
def test_building_leaves_nothing_after_an_error(tmp_path, error):
    with pytest.raises(type(error)), building(tmp_path / "new" / "out", kind=CORRECTION) as folder:
        write_half(folder, error)
    assert tree(tmp_path) == {}


def test_building_refuses_what_exists(tmp_path, old):
    before = tree(tmp_path)
    with pytest.raises(OutputExistsError, match="--overwrite"), building(old, kind=CORRECTION):
        pytest.fail("the block must not run")
    assert tree(tmp_path) == before


def test_building_replaces_the_whole_old_folder(tmp_path, old):
    with building(old, kind=CORRECTION, overwrite=True) as folder:
        (folder / "c.txt").write_text("new")
        assert (old / "a.txt").read_text() == "old"
    assert tree(tmp_path).keys() == {"out", "out/c.txt"}


def test_building_keeps_the_old_folder_after_an_error(tmp_path, old):
    before = tree(tmp_path)
    with pytest.raises(ValueError, match="no"), building(old, kind=CORRECTION, overwrite=True) as folder:
        write_half(folder, ValueError("no"))
    assert tree(tmp_path) == before


def test_building_puts_the_old_folder_back_where_the_new_one_cannot_be_renamed(tmp_path, old):
    before = tree(tmp_path)
    with pytest.raises(FileNotFoundError), building(old, kind=CORRECTION, overwrite=True) as folder:
        folder.rename(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert tree(tmp_path) == before


def test_building_replaces_files_and_links_but_not_what_a_link_points_to(tmp_path, old):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(old)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    before = tree(old)
    for name in ("file", "link", "dangling"):
        with building(tmp_path / name, kind=CORRECTION, overwrite=True) as folder:
            (folder / "c.txt").write_text("new")
        assert not (tmp_path / name).is_symlink()
        assert (tmp_path / name / "c.txt").read_text() == "new"
    assert tree(old) == before
    assert {path.name for path in tmp_path.iterdir()} == {"out", "file", "link", "dangling"}


def test_refuse_existing(tmp_path, old):
    refuse_existing(tmp_path / "free", kind=CORRECTION, overwrite=False)
    refuse_existing(old, kind=CORRECTION, overwrite=True)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path in (old, tmp_path / "dangling"):
        with pytest.raises(OutputExistsError):
            refuse_existing(path, kind=CORRECTION, overwrite=False)
    (tmp_path / "empty").mkdir()
    refuse_existing(tmp_path / "empty", kind=CORRECTION, overwrite=True)


def test_a_folder_that_no_command_has_written_is_not_replaced(tmp_path, old):
    (old / "report.json").unlink()
    before = tree(tmp_path)
    with pytest.raises(OutputExistsError, match="holds something else"), building(old, kind=CORRECTION, overwrite=True):
        pass
    assert tree(tmp_path) == before


def test_an_output_of_another_kind_is_not_replaced(tmp_path, old):
    """A database of cases is hours of work: no corrected series takes its place."""
    with pytest.raises(OutputExistsError, match="holds something else"), building(old, kind=PATCHES, overwrite=True):
        pass
    (old / "report.json").rename(old / "case-000001.h5")
    with pytest.raises(OutputExistsError, match="holds something else"), building(old, kind=CORRECTION, overwrite=True):
        pass


def test_an_empty_folder_is_free(tmp_path):
    (tmp_path / "empty").mkdir()
    with building(tmp_path / "empty", kind=CORRECTION) as folder:
        (folder / "report.json").write_text("{}")
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["report.json"]


def test_a_full_disk_is_reported_with_the_name_that_was_asked_for(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, replacing(tmp_path / "file.txt") as partial:
        write_half(partial, OSError(errno.ENOSPC, "No space left on device"))
    assert caught.value.filename == str(tmp_path / "file.txt")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_claimed_once(tmp_path):
    with claimed(tmp_path):
        with pytest.raises(OutputExistsError, match="another process is writing to it"), claimed(tmp_path):
            pass
        assert list(tmp_path.iterdir()) == []  # no lock file
    with claimed(tmp_path):
        pass


def test_what_was_left_behind_is_removed_and_nothing_else(tmp_path):
    (tmp_path / ".a.h5.12.partial").write_text("half")
    (tmp_path / ".b.12.partial").mkdir()
    (tmp_path / ".b.12.partial" / "c").write_text("half")
    for name in ("a.partial", ".a", "a.h5"):
        (tmp_path / name).write_text("kept")
    remove_partial(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a", "a.h5", "a.partial"]
