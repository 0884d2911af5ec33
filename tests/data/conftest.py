"""Fixtures: class folders of generated images."""

from pathlib import Path

import pytest

from tests.data.fake_image_folders import MakeTree, write_tree


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    """Return `write_tree` into this test's own folder."""
    return lambda parts, **how: write_tree(tmp_path, parts, **how)
