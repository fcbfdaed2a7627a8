"""Where a store lies and the options of its object store: what is wrong is told in seconds, and no secret with it."""

import json
import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.store import Store, locate
from pipeline.store.location import Location, hidden_option, read_options
from tests.s3_server import KEY, SECRET, Server, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("s3")) as running:
        yield running


BAD: dict[str, tuple[dict[str, str | None], str]] = {
    "secret": ({"aws_secret_access_key": "wr0ng"}, "access is refused"),
    "key": ({"aws_access_key_id": "wr0ng"}, "access is refused"),
    "down": ({"aws_endpoint": "http://127.0.0.1:9"}, "does not answer"),
    "http": ({"allow_http": None}, "allow_http"),
    "typo": ({"aws_secret_acess_key": "x"}, "did you mean aws_secret_access_key"),
    "value": ({"allow_http": "perhaps"}, "do not fit"),
}


@pytest.mark.parametrize("wrong", BAD)
def test_bad_options_are_told_in_seconds_and_without_secrets(server: Server, wrong: str) -> None:
    changed, expected = BAD[wrong]
    options = {name: value for name, value in {**server.options, **changed}.items() if value is not None}
    begun = time.monotonic()
    with pytest.raises(UserError, match=expected) as found:
        Store("s3://lab/x", create=True, options=options)
    assert time.monotonic() - begun < 30
    assert SECRET not in str(found.value)
    assert "wr0ng" not in str(found.value)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("s3://nobody/x", "no such bucket"),
        ("s3://lab/nothing here", "no store here"),
        ("ftp://lab/x", "ftp:// is not known"),
        ("s3:/lab/x", "two slashes"),
        ("s3://", "expected s3://BUCKET/PREFIX"),
        ("s3://lab/../x", "expected s3://BUCKET/PREFIX"),
        ("s3://lab/x?y=z", "expected s3://BUCKET/PREFIX"),
        (f"s3://{KEY}:se.cret@lab/x", "a URI holds no keys"),
    ],
)
def test_places_that_are_no_store(server: Server, place: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected) as found:
        Store(place, options=server.options)
    assert "se.cret" not in str(found.value)


def test_an_azure_account_is_asked_for() -> None:
    with pytest.raises(UserError, match="azure_storage_account_name is missing"):
        Store("az://container/x", options={})


def test_a_location_shows_no_secret_and_keeps_it(server: Server) -> None:
    place = locate("S3://lab/a b/", server.options) / "c"
    assert (str(place), repr(place)) == ("s3://lab/a b/c", "Location(uri='s3://lab/a b/c')")
    again = pickle.loads(pickle.dumps(place))
    assert (again, dict(again.options)) == (place, server.options)
    assert (place.local, place.name) == (False, "c")
    assert locate(place) is place
    assert locate("file:///tmp/a%20b") == Location("/tmp/a b")  # noqa: S108
    assert locate(Path("x")) == Location(str(Path.cwd() / "x"))


def test_options_come_from_files_and_words(tmp_path: Path) -> None:
    toml, whole = tmp_path / "s3.toml", {"aws_region": "eu", "allow_http": "true", "aws_secret_access_key": "a=b"}
    toml.write_text('AWS_REGION = "us"\nallow_http = true\naws_secret_access_key = "a=b"\n')
    assert read_options(toml, ["aws_region=eu"]) == whole
    (tmp_path / "s3.json").write_text(json.dumps(whole))
    assert read_options(tmp_path / "s3.json") == whole
    assert read_options(None) == {}
    for text in ("secret = [1, 2]", "secret", "[a]\nb = 1"):
        toml.write_text(text)
        with pytest.raises(UserError) as found:
            read_options(toml)
        assert "secret" not in str(found.value)
    with pytest.raises(UserError, match="TOML or JSON file"):
        read_options(tmp_path / "none.toml")
    with pytest.raises(UserError, match="KEY=VALUE"):
        read_options(None, ["aws_region"])
    assert hidden_option("aws_secret_access_key=x") == "aws_secret_access_key=***"
    assert hidden_option("aws_endpoint=http://u:p@h:1") == "aws_endpoint=http://***@h:1"
    assert hidden_option("aws_region=eu") == "aws_region=eu"
