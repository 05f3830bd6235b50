"""The split of a form, against RFC 2046/7578 and what real clients send."""

import email.message
import email.policy
import random

import httpx
import pytest

from service.errors import BadRequest, UnsupportedFormat
from service.protocols.rest.multipart import MAX_PARTS, find_boundary, split_parts

JPEG = bytes(range(256)) * 4
HEAD = b'Content-Disposition: form-data; name="img"; filename="a.jpg"\r\n'


def make_body(*parts: bytes, boundary: bytes = b"B", end: bytes = b"--\r\n") -> bytes:
    """A form of ready-made parts."""
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + end


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        pytest.param("multipart/form-data; boundary=abc", b"abc", id="bare"),
        pytest.param('multipart/form-data; boundary="a b:c"', b"a b:c", id="quoted, with space and colon"),
        pytest.param('multipart/form-data;BOUNDARY="a\\"b"', None, id="quote inside is not allowed"),
        pytest.param("multipart/form-data; charset=utf-8; boundary=x", b"x", id="after another parameter"),
        pytest.param("multipart/form-data; boundary=x; charset=utf-8", b"x", id="before another parameter"),
        pytest.param("multipart/form-data", None, id="absent"),
        pytest.param("multipart/form-data; boundary=", None, id="empty"),
        pytest.param("multipart/form-data; boundary=" + "x" * 70, b"x" * 70, id="longest"),
        pytest.param("multipart/form-data; boundary=" + "x" * 71, None, id="too long"),
        pytest.param('multipart/form-data; boundary="ends with space "', None, id="ends with a space"),
        pytest.param("multipart/form-data; boundary=\xe9", None, id="not ASCII"),
    ],
)
def test_boundary_is_read_as_the_rfc_says(content_type: str, boundary: bytes | None) -> None:
    if boundary is None:
        with pytest.raises(BadRequest):
            find_boundary(content_type)
    else:
        assert find_boundary(content_type) == boundary


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(make_body(HEAD + b"\r\n" + JPEG), [("img", JPEG)], id="one file"),
        pytest.param(
            make_body(HEAD + b"\r\n" + JPEG, end=b"--"), [("img", JPEG)], id="no line end at the end"
        ),
        pytest.param(
            b"preamble\r\n" + make_body(HEAD + b"\r\n" + JPEG) + b"epilogue\r\n--B\r\n",
            [("img", JPEG)],
            id="preamble and epilogue",
        ),
        pytest.param(
            make_body(
                b'content-disposition: form-data; name="top_k"\r\n\r\n3',
                HEAD + b"Content-Type: image/jpeg\r\n\r\n" + JPEG,
                b'Content-Disposition: form-data; name="note"\r\n\r\n',
            ),
            [("top_k", b"3"), ("img", JPEG), ("note", b"")],
            id="other fields around it",
        ),
        pytest.param(
            make_body(HEAD + b"\r\n" + b"x\r\n--BB\r\n--Bx--\r\ny"),
            [("img", b"x\r\n--BB\r\n--Bx--\r\ny")],
            id="longer boundaries in the content",
        ),
        pytest.param(
            make_body(HEAD + b"\r\n" + b"\r\n--\r\n--b\r\n\n--B\n"),
            [("img", b"\r\n--\r\n--b\r\n\n--B\n")],
            id="near misses in the content",
        ),
        pytest.param(make_body(HEAD + b"\r\n"), [("img", b"")], id="empty file"),
        pytest.param(make_body(HEAD + b"\r\n" + b"\r\n"), [("img", b"\r\n")], id="a line end as content"),
        pytest.param(
            b"--B  \t\r\n" + HEAD + b"\r\nx\r\n--B--", [("img", b"x")], id="white space after the boundary"
        ),
        pytest.param(b"--B--\r\n", [], id="no part at all"),
    ],
)
def test_parts_are_cut_to_the_byte(body: bytes, expected: list[tuple[str, bytes]]) -> None:
    assert [(part.name, part.content) for part in split_parts(body, b"B")] == expected


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"--A\r\n\r\n--A--", id="another boundary"),
        pytest.param(b"--B\r\n" + HEAD + b"\r\n" + JPEG, id="no closing boundary"),
        pytest.param(make_body(HEAD + b"\r\n" + JPEG)[:-5], id="cut inside the closing boundary"),
        pytest.param(make_body(HEAD), id="no empty line after the headers"),
        pytest.param(make_body(b"\r\n" + JPEG), id="no headers"),
        pytest.param(make_body(b"Content-Type: image/jpeg\r\n\r\nx"), id="no disposition"),
        pytest.param(make_body(b"Content-Disposition: form-data\r\n\r\nx"), id="no name"),
        pytest.param(make_body(b'Content-Disposition: attachment; name="img"\r\n\r\nx'), id="not form-data"),
        pytest.param(make_body(b"X: " + b"x" * 10_000 + b"\r\n" + HEAD + b"\r\nx"), id="endless headers"),
        pytest.param(make_body(*[HEAD + b"\r\nx"] * (MAX_PARTS + 1)), id="too many parts"),
        pytest.param(b"--B x\r\n" + HEAD + b"\r\nx\r\n--B--", id="text after the boundary"),
        pytest.param(make_body(HEAD + b"\r\nx").replace(b"\r\n", b"\n"), id="bare line feeds"),
    ],
)
def test_malformed_forms_are_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        split_parts(body, b"B")


def test_transfer_encodings_are_refused() -> None:
    with pytest.raises(UnsupportedFormat):
        split_parts(make_body(HEAD + b"Content-Transfer-Encoding: base64\r\n\r\neA=="), b"B")


def test_every_cut_of_a_form_is_refused_or_whole() -> None:
    body = make_body(b'Content-Disposition: form-data; name="a"\r\n\r\n1', HEAD + b"\r\nxyz")
    for end in range(len(body) - 2):
        with pytest.raises(BadRequest):
            split_parts(body[:end], b"B")
    assert len(split_parts(body[:-2], b"B")) == 2


def test_random_contents_come_back_as_httpx_sent_them() -> None:
    source = random.Random(7)
    for _ in range(200):
        pieces = [b"\r\n", b"--", b"B", b"\r", b"\n", b"x", source.randbytes(3)]
        content = b"".join(source.choices(pieces, k=source.randrange(40)))
        request = httpx.Request("POST", "http://x", files={"img": ("n.jpg", content)}, data={"top_k": "3"})
        boundary = find_boundary(request.headers["content-type"])
        parts = {part.name: part.content for part in split_parts(request.read(), boundary)}
        assert parts == {"img": content, "top_k": b"3"}


def test_requests_and_urllib3_are_understood() -> None:
    requests = pytest.importorskip("requests")
    files = {"img": ('Katze ü;"1".jpg', JPEG, "image/jpeg")}
    sent = requests.Request("POST", "http://x", files=files, data={"top_k": "3"}).prepare()
    boundary = find_boundary(sent.headers["Content-Type"])
    parts = [(part.name, part.content, part.has_file_name) for part in split_parts(sent.body, boundary)]
    assert sorted(parts) == [("img", JPEG, True), ("top_k", b"3", False)]


def test_agrees_with_the_standard_librarys_parser() -> None:
    source = random.Random(11)
    for _ in range(100):
        contents = [bytes(source.choices(b"ab-B\r", k=source.randrange(1, 30))) for _ in range(3)]
        contents = [content.strip(b"\r") or b"x" for content in contents]
        body = make_body(*(HEAD + b"\r\n" + content for content in contents))
        whole = b"Content-Type: multipart/form-data; boundary=B\r\n\r\n" + body
        parsed = email.message_from_bytes(whole, policy=email.policy.HTTP)
        expected = [bytes(part.get_payload(decode=True)) for part in parsed.iter_parts()]
        ours = [part.content for part in split_parts(body, b"B")]
        if any(b"\r" in content for content in contents):  # the library also ends lines at a bare CR
            continue
        assert ours == expected
