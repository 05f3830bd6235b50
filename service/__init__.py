"""Loads model versions onto a pool of workers and answers what is in a picture, over HTTP and gRPC."""
