"""Lays the site's sources out under build/docs-source: `python docs/site/stage.py`, then mkdocs reads build/mkdocs.yml.

The tree is the repository's own, so that a link means the same here, on the site and in an editor: every Markdown file
but those of tests, what they link to, and for a linked folder without a README a page that lists its files. In the
navigation of mkdocs.yml a pattern stands for all pages that it matches. A link to nothing ends it with status 1.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
LINK = re.compile(r"(?<!\\)!?\[[^\]]*\]\(\s*<?([^)\s>#]+)(?:#[^)\s]*)?>?\s*\)")
FENCED = re.compile(r"^( *)(```|~~~).*?^\1\2", re.M | re.S)


def committed() -> list[str]:
    """Every file of the repository that git does not ignore, as a path from its root."""
    asked = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    told = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in told.split("\0") if name and (ROOT / name).is_file())


def linked(page: str) -> set[str]:
    """What a Markdown file links to in the repository, as paths from its root."""
    text = FENCED.sub("", (ROOT / page).read_text())
    found = set()
    for target in LINK.findall(text):
        if not re.match(r"[a-z]+:", target):
            place = (ROOT / page).parent / target
            found.add(PurePosixPath(place.resolve().relative_to(ROOT)).as_posix())
    return found


def listing(folder: str, files: list[str]) -> str:
    """A page for a folder that has none of its own."""
    inside = [name.removeprefix(f"{folder}/") for name in files if name.startswith(f"{folder}/")]
    return "\n".join([f"# {folder}", "", *(f"* [{name}]({name})" for name in inside), ""])


def expanded(nav: Any, pages: list[str]) -> Any:
    """The navigation, with patterns replaced by what they match."""
    if isinstance(nav, dict):
        return {title: expanded(part, pages) for title, part in nav.items()}
    if isinstance(nav, list):
        made: list[Any] = []
        for part in nav:
            pattern = isinstance(part, str) and "*" in part
            made += [page for page in pages if PurePosixPath(page).match(part)] if pattern else [expanded(part, pages)]
        return made
    return nav


def main() -> int:
    """Stage; tell what is missing."""
    source = BUILD / "docs-source"
    shutil.rmtree(source, ignore_errors=True)
    files = committed()
    pages = [name for name in files if name.endswith(".md") and not name.startswith("tests/")]
    wanted, missing = {*pages, "docs/site/wide.css"}, []
    lists: dict[str, str] = {}
    for page in pages:
        for target in sorted(linked(page)):
            if (ROOT / target).is_dir():
                inside = [name for name in files if name.startswith(f"{target}/")]
                if f"{target}/README.md" not in files:
                    lists[target] = listing(target, files)
                    wanted.update(inside)
            elif target in files:
                wanted.add(target)
            else:
                missing.append(f"{page}: links to {target}, which is not there")
    for name in sorted(wanted):
        place = source / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, place)
    for folder, text in lists.items():
        (source / folder / "README.md").write_text(text)
    for page in pages:  # mkdocs asks for the page of a folder, not for the folder
        place = source / page
        text = place.read_text()
        for target in re.findall(r"\]\(([^)\s#:]+)\)", text):
            if ((ROOT / page).parent / target).is_dir():
                text = text.replace(f"]({target})", f"]({target.rstrip('/')}/README.md)")
        place.write_text(text)
    settings = yaml.load((Path(__file__).parent / "mkdocs.yml").read_text(), yaml.BaseLoader)
    nav = expanded(settings["nav"], pages)
    text = (Path(__file__).parent / "mkdocs.yml").read_text()
    shown = yaml.safe_dump({"nav": nav}, allow_unicode=True, sort_keys=False, width=1000)
    (BUILD / "mkdocs.yml").write_text(text[: text.index("\nnav:")] + "\n" + shown)
    print("\n".join(missing), file=sys.stderr, end="\n" if missing else "")
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main())
