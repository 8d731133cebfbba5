"""Where tests find the project and the data that it shares."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
FORMATS = ROOT / "tests" / "data" / "formats"
