"""The load generator: what it does about a connection that was closed while nobody used it."""

import asyncio

from service.client.load import Target

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_a_connection_closed_while_idle_is_opened_anew() -> None:
    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\nimage")
        writer.write(ANSWER)
        writer.close()
        await writer.wait_closed()
        closed.set()

    async def ask_three_times() -> list[str]:
        server = await asyncio.start_server(answer_once, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        caller = Target("127.0.0.1", port, "/", [b"image"]).connect()
        codes = []
        async with asyncio.timeout(60), server:
            for number in range(3):
                codes.append(await caller.ask(number))
                await closed.wait()
                closed.clear()
                await asyncio.sleep(0.05)  # its end is on its way
            await caller.close()
        return codes

    closed = asyncio.Event()
    assert asyncio.run(ask_three_times()) == ["200"] * 3
