"""Files into networks and networks into files: import, export, int8. Used offline, never by the service."""
