"""The OpenAPI document: complete, and kept by what the service answers to requests made from it."""

import hypothesis
import pytest
from hypothesis import HealthCheck

schemathesis = pytest.importorskip("schemathesis")
pytest.importorskip("fastapi")

from schemathesis.specs.openapi import checks

from conftest import make_card, write_model
from faceauth.output.rows import FIELDS
from faceauth.server.documents import EXAMPLE_ROW, Row
from serving import serving

CHECKS = (
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
)
OPERATIONS = {
    "get": {"/healthz", "/readyz", "/metrics", "/v1/models"},
    "post": {"/v1/detect", "/v1/explain", "/v1/provenance", "/v1/learn"},
}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    model = write_model(tmp_path_factory.mktemp("model") / "brightness.onnx", make_card())
    with serving("--model", model, "--whole-image", "--allow-learn") as running:
        yield running


@pytest.fixture(scope="module")
def document(service):
    return service.client.get("/v1/openapi.json").json()


def test_every_operation_is_there_with_words_and_a_body_for_every_error(document):
    found = {m: {path for path, item in document["paths"].items() if m in item} for m in OPERATIONS}
    assert found == OPERATIONS
    for item in document["paths"].values():
        for operation in item.values():
            assert operation["description"]
            for status, response in operation["responses"].items():
                if status != "200":
                    body = response["content"]["application/problem+json"]
                    assert body["schema"]["$ref"].endswith("/ProblemBody")
                    assert body["example"]["status"] == int(status)


def test_the_documented_row_is_the_row():
    assert tuple(Row.model_fields) == FIELDS
    assert set(Row(**EXAMPLE_ROW).model_dump()) == set(EXAMPLE_ROW)


def test_every_reference_leads_somewhere(document):
    def references(value):
        if isinstance(value, dict):
            yield from ([value["$ref"]] if "$ref" in value else [])
            value = list(value.values())
        if isinstance(value, list):
            for part in value:
                yield from references(part)

    found = set(references(document))
    assert found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]


@pytest.mark.parametrize("path", [p for paths in OPERATIONS.values() for p in sorted(paths)])
def test_what_is_asked_by_the_document_is_answered_by_it(service, document, path):
    schema = schemathesis.openapi.from_dict(document)
    (operation,) = [r.ok() for r in schema.get_all_operations() if r.ok().path == path]

    @hypothesis.settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @hypothesis.given(operation.as_strategy())
    def answered(case):
        case.call_and_validate(base_url=service.url, checks=CHECKS)

    answered()
