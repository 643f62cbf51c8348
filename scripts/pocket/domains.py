"""Finds domains of users' own: files with ERRANDS, named in the environment. It knows none of them."""

from __future__ import annotations

import os
import runpy

from errands import Errand

VARIABLE = "POCKET_DOMAIN"  # paths of Python files, parted as in PATH


def added() -> dict[str, Errand]:
    """The errands of all these files, by intent.

    Raises:
        ValueError: two files have an intent of the same name, or a file has no ERRANDS; it is named.
    """
    found: dict[str, Errand] = {}
    for path in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        own = runpy.run_path(path).get("ERRANDS")
        if not own:
            raise ValueError(f"{path} has no ERRANDS")
        if again := sorted(found.keys() & own.keys()):
            raise ValueError(f"{path}: there is an intent {again[0]} already")
        found |= own
    return found
