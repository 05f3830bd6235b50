"""HTTP on the admin port, for whoever runs the service: model versions sent, chosen, taken back, deleted."""

from service.protocols.admin.server import start_admin
from service.protocols.base import ProtocolEntry

PROTOCOL = ProtocolEntry("admin", "admin", start_admin)
