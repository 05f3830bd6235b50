"""Tests of what an operator deploys with."""
