"""Tests mirror the tree: tests/models for models/, tests/service for service/, each folder a package."""
