"""The pages say what is so: generated ones are current, names and links exist, examples run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from freehold import errors

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
LINK = re.compile(r"\[([^\]\n]*)\]\(([^)\s]+)\)")


def headings(page: Path) -> set[str]:
    """The anchors of a page."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.replace(" ", "-") for title in kept}


def missing(page: Path, text: str) -> list[str]:
    """The links of a page that lead nowhere, and those to code that does not have the name."""
    found = []
    for words, target in LINK.findall(text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            found.append(f"{target}: no such file")
        elif anchor and anchor not in headings(file):
            found.append(f"{target}: no such heading")
        elif file.suffix == ".py" and words.startswith("`") and not words.endswith(".py`"):
            found += unknown(words.strip("`"), file)
    return found


def unknown(name: str, file: Path) -> list[str]:
    """What of ``Class.method`` or ``function`` is not defined in the file."""
    text = file.read_text(encoding="utf-8")
    return [
        f"{file.name} has no {part} ({name})"
        for part in name.split(".")
        if not re.search(rf"^\s*(?:async )?(?:def|class) {part}\b", text, re.MULTILINE)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_names_exist(page: Path) -> None:
    assert missing(page, page.read_text(encoding="utf-8")) == []


def test_a_wrong_link_and_a_wrong_name_are_found() -> None:
    page = ROOT / "docs" / "tour.md"
    code = "../src/freehold/core/process/client.py"
    assert missing(page, f"[`Client.submit_full`]({code}) [a](#a-tour-one-call-file-by-file)") == []
    for text in ("[a](nowhere.md)", "[a](#nowhere)", f"[`Client.fly`]({code})"):
        assert len(missing(page, text)) == 1


def test_the_tour_s_picture_names_what_the_files_have() -> None:
    picture = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8").split("```")[3]
    pairs = re.findall(r"([\w/]+\.py)\s+([A-Z]\w+\.\w+|dumps|encode|get)\b", picture)
    assert len(pairs) == 17
    for path, name in pairs:
        assert unknown(name, ROOT / "src" / "freehold" / path) == []


def test_every_error_is_on_its_page() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    names = {kind.__name__ for kind in kinds if issubclass(kind, errors.FreeholdError)}
    assert not {name for name in names if f"`{name}`" not in text and f".{name}`" not in text}


def test_the_readme_s_example_prints_what_it_says() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks: list[str] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    example = blocks[0]
    says = re.search(r"^print\(.*\)\s+# (.*)$", example, re.MULTILINE)
    assert says is not None
    ran = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.strip() == says[1]
    assert ran.stderr == ""


def test_the_protocol_page_is_current() -> None:
    generator = [sys.executable, "tools/protocol_docs.py", "--check", "docs/protocol.md"]
    found = subprocess.run(generator, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr + "run `make docs`"


@pytest.mark.parametrize("block", ["bench", "nsdi21"])
def test_the_readme_s_tables_are_those_of_the_results(block: str) -> None:
    generator = [sys.executable, f"tools/readme_{block}.py", "--check"]
    found = subprocess.run(generator, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr + "run `make docs`"
