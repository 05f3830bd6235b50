"""The page's files, as a browser asks for them; tests/browser looks at them in a real one."""

import re

import httpx
import pytest

from service.protocols.rest.routes.page import ASSETS


def test_page_is_served_with_everything_it_names(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    named = set(re.findall(r'(?:href|src)="(web/[^"]+)"', page.text))
    assert {"web/page.js", "web/page.css", "web/icon.svg"} <= named
    for path in named:
        assert client.get(f"/{path}").status_code == 200, path


def test_modules_that_modules_import_are_served(client: httpx.Client) -> None:
    imported = re.findall(r'from "\./([^"]+)"', (ASSETS / "page.js").read_text())
    assert imported
    for name in imported:
        answer = client.get(f"/web/{name}")
        assert answer.headers["content-type"].startswith("text/javascript")


def test_page_asks_no_other_host() -> None:
    for path in ASSETS.glob("*.*"):
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://", text), path.name


@pytest.mark.parametrize(
    "path", ["/web/../settings.py", "/web/%2e%2e/settings.py", "/web/nothing.js", "/web/"]
)
def test_only_the_pages_own_files_are_served(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404
