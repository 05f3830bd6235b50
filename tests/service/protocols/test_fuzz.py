"""The OpenAPI document holds: a small run of what `make test-schema` does at length."""

import pytest

from tests.service.protocols.fuzz import SCHEMATHESIS, fuzz_frontend


@pytest.mark.timeout(300)
def test_every_operation_answers_as_documented() -> None:
    if not SCHEMATHESIS.exists():
        pytest.skip("schemathesis is not installed")
    report = fuzz_frontend(examples=2)
    assert report.code == 0, report.text[-8000:]
    assert report.cases > 100
