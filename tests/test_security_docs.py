"""docs/security.md names tests and settings: each exists, and each default is the code's."""

import ast
import re
from pathlib import Path

from service.access.keys import SCOPES
from service.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
THREATS = TEXT[TEXT.index("## Threats") : TEXT.index("## What is left")]
OFF = {"off", "none", "closed"}


def list_threats() -> list[list[str]]:
    """The cells of every row of the table of threats."""
    rows = [line for line in THREATS.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[1:]]


def test_every_threat_names_tests_that_exist() -> None:
    rows = list_threats()
    assert len(rows) > 25
    for threat, _, _, named in rows:
        tests = re.findall(r"`(tests/[\w/.]+)::(test_\w+)`", named)
        assert tests, f"{threat!r} names no test"
        for file, name in tests:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (
                file,
                name,
            )


def test_every_default_is_the_codes() -> None:
    settings = Settings()
    for threat, _, named, _ in list_threats():
        for name, default in re.findall(rf"`{PREFIX}(\w+)` \(([^)]*)\)", named):
            actual = str(getattr(settings, name.lower()))
            assert actual == ("" if default in OFF else default), threat


def test_every_scope_is_explained() -> None:
    assert re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE) == list(SCOPES)
