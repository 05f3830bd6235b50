"""Measurements, one command each. A figure counts only with its raw file in bench/results."""
