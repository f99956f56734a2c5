"""Every request that OpenAPI allows, and many that it does not, gets an answer that the document describes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance

from nameplate.demo import photos_folder
from nameplate.serve.app import routes_alone
from tests.serve.running import Running, serving

PHOTOS = [path.read_bytes() for path in sorted(photos_folder("test").glob("*/*.jpg"))[:3]]
FILES = st.sampled_from([*PHOTOS, PHOTOS[0][:2000], b""]) | st.binary(max_size=64)
schemathesis.openapi.format("binary", FILES)
for kind in ("jpeg", "png", "webp", "avif"):
    schemathesis.openapi.media_type(f"image/{kind}", FILES)
schemathesis.openapi.media_type("application/zip", FILES)
# A wrong form may be too large as well, and 413 then says so; schemathesis does not count it as a refusal by itself.
REFUSED = ["400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "428", "429", "5xx"]
CONFIG = schemathesis.config.SchemathesisConfig.from_dict(
    {"checks": {"negative_data_rejection": {"expected-statuses": REFUSED}}}
)
schema = schemathesis.openapi.from_dict(routes_alone().openapi(), config=CONFIG)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving("--threads", "1", "--jobs", tmp_path_factory.mktemp("jobs")) as running:
        yield running


@schema.parametrize()
@settings(max_examples=50, deadline=None)
def test_a_request_gets_an_answer_that_is_described(case: schemathesis.Case[Any], server: Running) -> None:
    """Every check but one: that bytes are no photo is for no schema to say, so that valid requests may be refused."""
    _ask(case, server)


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=1000, deadline=None)
def test_a_thousand_requests_get_described_answers(case: schemathesis.Case[Any], server: Running) -> None:
    _ask(case, server)


def _ask(case: schemathesis.Case[Any], server: Running) -> None:
    case.call_and_validate(base_url=server.url, excluded_checks=[positive_data_acceptance])


def test_operations_have_short_names_and_state_only_refusals_that_happen() -> None:
    operations = {
        (path, operation["operationId"]): set(operation["responses"])
        for path, item in routes_alone().openapi()["paths"].items()
        for operation in item.values()
    }
    names = [name for _, name in operations]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9_]{4,20}", name) for name in names)
    for (path, _), statuses in operations.items():
        guarded = {"401", "403", "429"} & statuses
        if "/health/" in path:
            assert not guarded
        else:
            assert guarded == ({"403", "429"} if path == "/v1/service" else {"401", "403", "429"})
