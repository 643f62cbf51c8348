from pathlib import Path

import pytest
from wire_player import play

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.jsonl"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    """Every `<` line as written; the player also parses each with the published types, strictly."""
    lines = path.read_text().splitlines()
    assert play(lines) == lines
