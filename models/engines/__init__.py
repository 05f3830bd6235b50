"""Engines: one file each, one small protocol (base.Engine), checked against each other by golden images."""
