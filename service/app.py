"""The only place that builds things: each process of the service is put together here, and nowhere else.

Imports stay inside the functions, so that each process loads only what it runs.
"""

import importlib
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from service.settings import BadSettings, Settings

if TYPE_CHECKING:
    from service.recruits import Recruits
    from service.transport import ControlChannel


def run_service(settings: Settings) -> int:
    """The supervisor's process, from settings to exit code; raises BadSettings."""
    from service.recruits import start_ahead

    with start_ahead("worker", "frontend") as recruits:
        return _supervise(settings, recruits)


def _supervise(settings: Settings, recruits: "Recruits") -> int:
    from models.repository import ModelRepository
    from service.access.keys import BadKeyFile, read_keys
    from service.devices import list_devices
    from service.jobs.sources import parse_roots
    from service.listening import open_listeners
    from service.logs import set_up_logs
    from service.rollout import Rollout
    from service.supervisor import Supervisor
    from service.tls import check_tls

    set_up_logs("supervisor", settings.log_format, settings.log_level)
    devices = list_devices(settings)
    directories = [Path(one).absolute() for one in settings.model_repository.split(":") if one]
    rollout = Rollout(ModelRepository(directories), settings)
    parse_roots(settings.batch_roots)  # a frontend would find the mistake too late
    check_tls(settings)
    if settings.api_keys:
        try:
            read_keys(Path(settings.api_keys))
        except BadKeyFile as err:
            raise BadSettings(
                f"SERVE_API_KEYS={settings.api_keys}: {err}; `resnet-serve keys add` makes it"
            ) from err
    if not rollout.choose():
        raise BadSettings(
            f"SERVE_MODEL_REPOSITORY={settings.model_repository}: no model version to serve is there; "
            "`python -m models import` or `python -m training` makes one"
        )
    listeners = open_listeners(settings)
    log = logging.getLogger("supervisor")
    log.info("settings", extra={"fields": settings.with_secrets_hidden()})
    log.info("listening", extra={"fields": listeners.describe()})
    with tempfile.TemporaryDirectory(prefix="resnet-serve-metrics-") as metrics_dir:
        supervisor = Supervisor(
            settings, listeners, rollout, devices, metrics_dir=metrics_dir, recruits=recruits
        )
        return supervisor.run()


def run_child(role: str, control: "ControlChannel") -> int:
    """A child process (frontend, job runner or worker), from its first message to its exit code."""
    module = {
        "frontend": "service.frontend",
        "jobs": "service.jobs.process",
        "worker": "service.worker.main",
    }[role]
    run: Callable[[ControlChannel], int] = importlib.import_module(module).run
    return run(control)
