"""On PYTHONPATH of a service, this folder gives its workers an engine at the test's command."""

from tests.serving import ROOT

PYTHONPATH = f"{ROOT}:{ROOT}/tests/faults/engine"
