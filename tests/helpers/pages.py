"""What the README and the pages of the manual hold: code blocks, command lines, links."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MADE = {"_build", "commands", "reference", "notebooks"}  # by the build

_FENCE = re.compile(
    r"(?:<!-- (?P<marker>not run: [^>]+) -->\n)?^(?P<indent> *)```(?P<language>[^\n]*)\n"
    r"(?P<text>.*?)^ *```$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and text, and the reason why it is not run, if there is one."""

    language: str
    text: str
    reason: str | None


def pages() -> list[Path]:
    """Return the Markdown that people read, without what the build makes."""
    manual = sorted((ROOT / "docs").rglob("*.md"))
    written = [path for path in manual if not MADE & set(path.relative_to(ROOT / "docs").parts)]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *written]


def name_of(path: Path) -> str:
    """Return a page's path inside the repository."""
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    found = _FENCE.finditer(path.read_text(encoding="utf-8"))
    return [Block(m["language"].strip(), m["text"], m["marker"]) for m in found]


def python_blocks(path: Path) -> list[Block]:
    """Return the blocks in Python."""
    return [block for block in blocks(path) if block.language == "python"]


def prose(path: Path) -> str:
    """Return the text of a page without its blocks."""
    return _FENCE.sub("", path.read_text(encoding="utf-8"))


def command_lines(path: Path) -> list[list[str]]:
    """Return the words after ``deepcg`` of every line in blocks that begins with it."""
    lines: list[list[str]] = []
    for block in blocks(path):
        if block.language in ("", "sh"):
            joined = block.text.replace("\\\n", " ").splitlines()
            lines += [shlex.split(x, comments=True)[1:] for x in joined if x.startswith("deepcg ")]
    return lines


def inline_commands(path: Path) -> list[list[str]]:
    """Return the same of code within text."""
    found = re.findall(r"`(deepcg [a-z][^`]*)`", prose(path))
    return [shlex.split(" ".join(text.split()))[1:] for text in found]


def links(path: Path) -> list[str]:
    """Return the targets of links and pictures that lead to files."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(path))
    return [target for target in found if not re.match(r"[a-z]+:", target)]
