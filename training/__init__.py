"""Train the paper's networks, measure them and turn them into model versions.

Reads top to bottom: recipe -> data -> augment -> schedule -> loop -> state; then evaluate, export, report.
Uses models/ and knows nothing of the service.
"""
