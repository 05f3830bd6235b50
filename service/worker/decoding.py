"""Decoding beside the worker: one process a lane, limited in memory, replaced when an image kills it.

On a GPU a worker that dies takes a CUDA context with it, seconds to make anew and shared by all its requests.
So there images are decoded in processes of their own (decoder.py); a dead one costs one start of Python.
"""

import logging
import queue
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np

from models.decode import DecodedImage, DecodeLimits, ImageHeader, decode_image
from service.children import OWN_DOING
from service.errors import DeadlinePassed, PoisonImage
from service.worker.decoder import EXIT_MEMORY, Refusal, Unpacked, receive_exactly, receive_reply, send_image

DEATHS_OF_POISON = 2

log = logging.getLogger("worker")


class InlineDecoder:
    """Decodes in the lane that asks."""

    def decode(
        self, image: bytes, limits: DecodeLimits, header: ImageHeader | None, deadline: float
    ) -> DecodedImage:
        """As models.decode.decode_image; `deadline` is for decoders that can be stopped."""
        return decode_image(image, limits, header)

    def close(self) -> None:
        """Nothing to end."""


@dataclass(frozen=True, slots=True)
class _Process:
    process: subprocess.Popen[bytes]
    sock: socket.socket

    def end(self) -> int:
        """Kill it if it lives; returns how it ended."""
        self.sock.close()
        if self.process.poll() is None:
            try:
                self.process.wait(5.0)  # its socket closed under it, or it is dying
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


class DecoderProcesses:
    """`count` decoders, each limited to `memory_bytes` above what it needs to start. Threads may share it."""

    def __init__(self, count: int, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._idle: queue.LifoQueue[_Process] = queue.LifoQueue()
        for process in [self._start() for _ in range(count)]:
            self._idle.put(process)

    def decode(
        self, image: bytes, limits: DecodeLimits, header: ImageHeader | None, deadline: float
    ) -> DecodedImage:
        """As models.decode.decode_image, by time.monotonic() `deadline`.

        An image whose decoder dies of it is tried once more in a new one; a second death raises PoisonImage.
        A decoder that was killed from outside blames nobody. Raises ImageError, PoisonImage, DeadlinePassed.
        """
        deaths = 0
        while True:
            decoder = self._idle.get()
            try:
                decoded = self._ask(decoder, image, limits, deadline)
            except TimeoutError:
                decoder.process.kill()
                self._replace(decoder)
                raise DeadlinePassed("the deadline passed while the image was decoded") from None
            except OSError:
                code = self._replace(decoder)
                deaths += code == EXIT_MEMORY or -code in OWN_DOING
                if deaths == DEATHS_OF_POISON:
                    raise PoisonImage("this image crashed the decoder twice, alone") from None
                continue
            except BaseException:
                self._replace(decoder)
                raise
            self._idle.put(decoder)
            if isinstance(decoded, Refusal):
                raise decoded.to_error()
            return decoded

    def close(self) -> None:
        """End those that are idle; call it when no lane decodes any more."""
        while not self._idle.empty():
            self._idle.get().end()

    def _ask(
        self, decoder: _Process, image: bytes, limits: DecodeLimits, deadline: float
    ) -> DecodedImage | Refusal:
        decoder.sock.settimeout(max(0.001, deadline - time.monotonic()))
        send_image(decoder.sock, image, limits)
        reply = receive_reply(decoder.sock)
        if not isinstance(reply, Unpacked):
            return reply
        pixels = np.empty((reply.height, reply.width, 3), np.uint8)
        receive_exactly(decoder.sock, pixels.data.cast("B"))
        return DecodedImage(pixels, reply.format, reply.orientation)

    def _replace(self, dead: _Process) -> int:
        code = dead.end()
        log.warning("decoder ended", extra={"fields": {"pid": dead.process.pid, "code": code}})
        self._idle.put(self._start())
        return code

    def _start(self) -> _Process:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
                [
                    sys.executable,
                    "-m",
                    "service.worker.decoder",
                    str(theirs.fileno()),
                    str(self._memory_bytes),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        return _Process(process, ours)
