"""Write docs/protocol.md from ``freehold.core.messages``, which is the only source of the protocol.

Usage: ``python tools/protocol_docs.py docs/protocol.md`` writes the page; with ``--check`` it only
says, by its exit status, whether the page is what would be written.

The headings are the ``# -- heading`` comments of that module, so that a reader of the page and a
reader of the code see the same chapters.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from pathlib import Path

from freehold.core import messages
from freehold.core.messages import Message

INTRODUCTION = """\
# The control protocol, version {version}

Generated from `src/freehold/core/messages.py` by `make docs`; edit that file, not this one.

{about}

How to change the protocol stands in `CONTRIBUTING.md`.

"""


def headings(source: str) -> dict[str, str]:
    """Return the chapter heading that stands before a message's definition, by message name."""
    found: dict[str, str] = {}
    heading = ""
    for line in source.splitlines():
        if line.startswith("# -- "):
            heading = line.removeprefix("# -- ").rstrip(" -")
        elif heading and (definition := re.match(r"([A-Z][A-Z0-9_]*) = _message\(", line)):
            found[definition[1]], heading = heading[0].upper() + heading[1:], ""
    return found


def overview(rows: list[Message]) -> str:
    """Return one line per message: its opcode, name and ways."""
    lines = ["| op | message | from | to | fields |", "|---:|---|---|---|---|"]
    for row in rows:
        names = ", ".join(field.split(":")[0] for field in row.fields) or "–"
        anchor = row.name.lower()
        lines.append(
            f"| {row.op} | [{row.name}](#{anchor}) | {row.sender} | {row.receiver} | {names} |"
        )
    return "\n".join(lines)


def section(row: Message) -> str:
    """Return one message's section: who says it to whom, what it means, what it carries."""
    lines = [f"### {row.name}", "", f"`{row.op}` · {row.sender} → {row.receiver}. {row.doc}"]
    if row.fields:
        lines += ["", "| field | type | meaning |", "|---|---|---|"]
    for field in row.fields:
        name, _, rest = field.partition(":")
        kind, _, meaning = rest.partition(" — ")
        lines.append(f"| `{name}` | {cell(kind)} | {cell(meaning)} |")
    return "\n".join(lines)


def cell(text: str) -> str:
    """Return the text as it may stand in a table's cell."""
    return text.strip().replace("|", "\\|")


def about(docstring: str) -> str:
    """Return the module's docstring as Markdown, less what only its editor needs."""
    return docstring.split("\n\n", 1)[-1].strip().replace("``", "`")


def page(rows: list[Message], source: str, docstring: str, version: int) -> str:
    """Return the whole page."""
    chapter = headings(source)
    parts = [INTRODUCTION.format(version=version, about=about(docstring)) + overview(rows)]
    for row in rows:
        if row.name in chapter:
            parts.append(f"## {chapter[row.name]}")
        parts.append(section(row))
    return "\n\n".join(parts) + "\n"


def main() -> int:
    """Write or check the page; return the exit status."""
    parser = argparse.ArgumentParser(description="Generate the protocol's page.")
    parser.add_argument("path", type=Path, help="the page, docs/protocol.md")
    parser.add_argument("--check", action="store_true", help="only compare")
    arguments = parser.parse_args()
    text = page(
        list(messages.MESSAGES),
        inspect.getsource(messages),
        messages.__doc__ or "",
        messages.VERSION,
    )
    path: Path = arguments.path
    if not arguments.check:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return 0
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return 0
    print(f"{path} is not what `make docs` writes now", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
