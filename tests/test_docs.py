"""The docs say what the code does: names, defaults and links that can be checked are checked."""

import dataclasses
import re
from pathlib import Path

import pytest

from service.settings import PREFIX, ZOO, Settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")])
MAKE_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def slugs_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as Markdown viewers make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def describe_settings() -> list[str]:
    """The rows that docs/operations.md must have, in the order of service/settings.py."""
    rows = []
    for one in dataclasses.fields(Settings):
        default = "" if one.default is None else str(one.default).replace(str(ZOO), "models/zoo")
        shown = f"`{default}`" if default else ""
        rows.append(f"| `{PREFIX}{one.name.upper()}` | {shown} | {one.metadata['meaning']} |")
    return rows


def test_operations_lists_every_setting_with_its_default_and_meaning() -> None:
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| `{PREFIX}.*\|$", text, re.MULTILINE)
    assert rows == describe_settings(), "the table in docs/operations.md must be these lines:\n" + "\n".join(
        describe_settings()
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_named_in_docs_exist(page: Path) -> None:
    named = re.findall(
        r"`make ([a-z-]+)|^ *(?:\$ )?make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE
    )
    missing = {first or second for first, second in named} - MAKE_TARGETS
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]*)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if target and "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_a_heading_name_one_that_exists(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            linked = page.parent / target if target else page
            assert anchor in slugs_of(linked), f"{page.name} links to {target}#{anchor}"


def test_settings_named_in_docs_exist() -> None:
    known = {PREFIX + one.name.upper() for one in dataclasses.fields(Settings)}
    for page in PAGES:
        named = set(re.findall(rf"\b{PREFIX}[A-Z][A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8")))
        assert named <= known, f"{page.name} names {sorted(named - known)}"


def test_the_changelog_has_a_place_for_what_comes_next() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## Unreleased$", text, re.MULTILINE)
