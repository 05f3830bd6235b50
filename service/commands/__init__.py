"""The command line, one file a command: each module's COMMAND is found by the catalog."""
