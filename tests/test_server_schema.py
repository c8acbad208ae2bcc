"""Requests that Schemathesis makes of the server's own OpenAPI document, on every route: none is a fault of ours."""

import pytest
from fixtures_server import Upstream, running
from test_server_fuzz import MemoryLog, served

pytest.importorskip("schemathesis")

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

CHECKS = [not_a_server_error, response_schema_conformance, content_type_conformance]
#: Of each route; no clock decides when it ends.
EXAMPLES = 6


@pytest.fixture(scope="module")
def schema():
    log = MemoryLog()
    with running(Upstream()) as url, served(log, upstream_url=f"{url}/v1", max_body_bytes=100_000) as port:
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    assert not [event for event in log.events if event[0] == "unexpected error"]


def test_requests_made_from_the_document_are_answered_as_it_says(schema):
    operations = [each.ok() for each in schema.get_all_operations()]
    assert {"/v1/compress", "/v1/hooks/portkey", "/v1/messages", "/v1/stats"} <= {each.path for each in operations}
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def answered(case):
            case.call_and_validate(checks=CHECKS)

        answered()
