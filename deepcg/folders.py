"""Folders for output: refused before the work where they cannot be."""

from __future__ import annotations

from pathlib import Path

from deepcg.errors import InputError


def check_place(folder: Path) -> None:
    """Refuse a folder that cannot be made because a file is in its place.

    Raises
    ------
    InputError
        Names the file.
    """
    for place in (folder, *folder.parents):
        if place.is_dir():
            return
        if place.exists():
            raise InputError(f"{place} is a file, not a folder: give another --output")


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it, where it does not exist.

    Raises
    ------
    InputError
        It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the folder {folder} cannot be made ({error.strerror}): give another --output"
        ) from error
