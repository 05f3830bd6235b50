"""Batches: read from a body or a store, kept in a folder, scored in bulk, answered in order."""
