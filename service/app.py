"""The only place that builds things: each process of the service is put together here, and nowhere else.

Imports stay inside the functions, so that each process loads only what it runs.
"""

from service.transport import ControlChannel


def run_frontend(control: ControlChannel) -> int:
    """A frontend process, from its first message to its exit code."""
    from service.frontend import run

    return run(control)


def run_worker(control: ControlChannel) -> int:
    """A worker process, from its first message to its exit code."""
    from service.worker.main import run

    return run(control)
