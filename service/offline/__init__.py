"""Batches without a server: the worker's own pipeline and engine, driven by threads of this process."""
