"""Programs of people who use other servers' clients. Each is a process: the clients' messages collide."""
