"""The tiny random-weight checkpoints live with the models' tests; the engine's tests use them too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "models"))
