"""Where every child process begins: `python -m service.child ROLE CONTROL_FD`, run by the supervisor only."""

import sys

from service import app
from service.transport import ControlChannel


def main() -> int:
    """Run the role named on the command line over the inherited control channel."""
    role, control = sys.argv[1], ControlChannel.from_fd(int(sys.argv[2]))
    return app.run_child(role, control)


if __name__ == "__main__":
    sys.exit(main())
