"""On PYTHONPATH of a service, this folder gives its workers an engine whose device has little memory."""
