"""Engines by the names of real ones."""
