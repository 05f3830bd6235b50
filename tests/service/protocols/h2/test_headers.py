"""Header blocks: the examples of RFC 7541, and what is remembered of them."""

import pytest
from hpack import Decoder, Encoder

from service.protocols.h2.frames import ConnectionFault, ErrorCode
from service.protocols.h2.headers import SIZE_UPDATE_TO_ZERO, HeaderReader, Headers, write_headers

GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")]
NO_CACHE = (b"cache-control", b"no-cache")


def make_reader(max_bytes: int = 16_384) -> HeaderReader[Headers]:
    return HeaderReader(max_bytes, lambda headers: headers)


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param(
            ["828684410f7777772e6578616d706c652e636f6d", "828684be58086e6f2d6361636865"], id="C.3, plain"
        ),
        pytest.param(
            ["828684418cf1e3c2e5f23a6ba0ab90f4ff", "828684be5886a8eb10649cbf"], id="C.4, Huffman's code"
        ),
    ],
)
def test_requests_of_the_appendix_are_read(blocks: list[str]) -> None:
    reader = make_reader()
    assert list(reader.read(bytes.fromhex(blocks[0]))) == GET
    assert list(reader.read(bytes.fromhex(blocks[1]))) == [*GET, NO_CACHE]


def test_a_block_that_changes_nothing_is_understood_once() -> None:
    understood: list[Headers] = []

    def understand(headers: Headers) -> int:
        understood.append(headers)
        return len(understood)

    reader = HeaderReader(16_384, understand)
    encoder = Encoder()
    first = encoder.encode([(b":path", b"/a"), (b"x-one", b"1")])  # fills the table
    again = encoder.encode([(b":path", b"/a"), (b"x-one", b"1")])  # only names its entries
    assert [reader.read(block) for block in (first, again, again, again)] == [1, 2, 2, 2]


def test_what_was_remembered_is_forgotten_when_the_table_changes() -> None:
    reader, encoder = make_reader(), Encoder()
    reader.read(encoder.encode([(b"x-one", b"1")]))
    newest = b"\xbe"  # the entry that came last
    assert list(reader.read(newest)) == [(b"x-one", b"1")]
    reader.read(encoder.encode([(b"x-two", b"2")]))
    assert list(reader.read(newest)) == [(b"x-two", b"2")]


def test_an_emptied_table_forgets_too() -> None:
    reader, encoder = make_reader(), Encoder()
    reader.read(encoder.encode([(b"x-one", b"1")]))
    reader.read(b"\xbe")
    reader.read(SIZE_UPDATE_TO_ZERO)
    with pytest.raises(ConnectionFault) as caught:
        reader.read(b"\xbe")
    assert caught.value.code is ErrorCode.COMPRESSION_ERROR


@pytest.mark.parametrize(
    "block",
    [
        pytest.param("ff", id="an index cut off"),
        pytest.param("80", id="index nothing"),
        pytest.param("ffffffffffffffffff7f", id="an index without end"),
        pytest.param("400a637573746f6d", id="a name cut off"),
        pytest.param("3fe1ffff07", id="a table larger than allowed"),
        pytest.param("8220", id="a size update after a header"),
        pytest.param("4085ffffffffff0161", id="code that Huffman has not"),
    ],
)
def test_a_block_that_makes_no_sense_ends_the_connection(block: str) -> None:
    with pytest.raises(ConnectionFault) as caught:
        make_reader().read(bytes.fromhex(block))
    assert caught.value.code is ErrorCode.COMPRESSION_ERROR


def test_a_small_block_that_becomes_large_is_refused() -> None:
    reader, encoder = make_reader(4_096), Encoder()
    reader.read(encoder.encode([(b"x", b"a" * 3_000)]))
    with pytest.raises(ConnectionFault) as caught:
        reader.read(b"\xbe" * 1_000)  # 3 MB in 1,000 bytes
    assert caught.value.code is ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 254, 255, 256, 300, 16_000, 16_511])
def test_what_is_written_is_read_by_others(size: int) -> None:
    headers = [(b"grpc-message", b"a" * size), (b"x-request-id", b"1")]
    found = Decoder().decode(write_headers(headers), raw=True)
    assert [(bytes(name), bytes(value)) for name, value in found] == headers
