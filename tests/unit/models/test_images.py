from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from numerai_pipeline.models.images import image_reference, image_tag

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for folder in ("base", "contract", "classic", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "Dockerfile").write_text(f"# {folder}\n")
    return tmp_path


def test_image_reference_has_name_and_tag(images: Path) -> None:
    assert image_reference(images, "classic") == f"numerai-classic:{image_tag(images, 'classic')}"
    assert len(image_tag(images, "classic")) == 12


@pytest.mark.parametrize("changed", ["classic/Dockerfile", "classic/svm.py", "contract/x/y.py", "base/Dockerfile"])
def test_image_tag_changed_input_changes_the_tag(images: Path, changed: str) -> None:
    before = image_tag(images, "classic")
    (images / changed).parent.mkdir(exist_ok=True)
    (images / changed).write_text("something else\n")
    assert image_tag(images, "classic") != before


@pytest.mark.parametrize("changed", ["other/Dockerfile", "models.yaml", "classic/__pycache__/svm.pyc"])
def test_image_tag_changed_unrelated_file_keeps_the_tag(images: Path, changed: str) -> None:
    before = image_tag(images, "classic")
    (images / changed).parent.mkdir(exist_ok=True)
    (images / changed).write_text("something else\n")
    assert image_tag(images, "classic") == before


def test_image_tag_moved_file_changes_the_tag(images: Path) -> None:
    (images / "classic/a.py").write_text("x")
    before = image_tag(images, "classic")
    (images / "classic/a.py").rename(images / "classic/b.py")
    assert image_tag(images, "classic") != before


def test_image_tag_of_the_base_does_not_depend_on_the_contract(images: Path) -> None:
    before = image_tag(images, "base")
    (images / "contract/new.py").write_text("x")
    assert image_tag(images, "base") == before


def test_image_tag_without_dockerfile_raises(images: Path) -> None:
    with pytest.raises(FileNotFoundError, match="exotic/Dockerfile"):
        image_tag(images, "exotic")


def test_image_tag_other_python_version_changes_the_tag(images: Path) -> None:
    assert image_tag(images, "classic", "3.9") != image_tag(images, "classic")
    assert image_tag(images, "base", "3.9") != image_tag(images, "base")
