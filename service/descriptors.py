"""File descriptors of a process: as many as the system allows, and how many connections fit into them."""

import logging
import resource

# Beside HTTP connections: gRPC's, workers, listening sockets, metric files, batches being received.
OTHERS = 256

log = logging.getLogger("frontend")


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit to the hard one, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def fit_connections(wanted: int, descriptors: int) -> int:
    """How many of `wanted` connections a process of so many descriptors can hold; warns if not all of them.

    The rest is for everything else: at least OTHERS, but never more than half.
    """
    room = max(descriptors - OTHERS, descriptors // 2)
    if wanted <= room or descriptors == resource.RLIM_INFINITY:
        return wanted
    fields = {"SERVE_MAX_CONNECTIONS": wanted, "descriptors": descriptors, "connections": room}
    detail = "fewer connections than SERVE_MAX_CONNECTIONS: raise the limit of open files (ulimit -Hn)"
    log.warning(detail, extra={"fields": fields})
    return room
