"""What a connection may cost and how long it may take."""

from dataclasses import dataclass

CONNECTION_WINDOW = 1 << 24
FRAME_BYTES = 1 << 17  # the largest frame that is taken: an image of 100 kB is one
# In one second, of frames that cost work and bring nothing: settings, pings, resets, empty data and the like.
MAX_IDLE_FRAMES = 2_000
MAX_PING_STRIKES = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, bytes. A peer silent for `ping_s` is pinged, and has `pong_s` to say anything; it may ping
    every `client_ping_s` itself. An answer that nobody takes for `stuck_s` ends.
    """

    max_connections: int
    max_streams: int
    max_header_bytes: int
    header_timeout_s: float
    idle_s: float
    max_age_s: float
    age_grace_s: float
    ping_s: float
    pong_s: float
    client_ping_s: float
    stuck_s: float
