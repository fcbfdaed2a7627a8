"""A real S3 server on loopback: localbucket, which keeps objects as files and puts absent keys atomically, with what
it lacks added: signatures are checked, many objects are deleted by one request, and it can be made to hang or fail.

As a program (`python -m tests.s3_server FOLDER`) it prints its address and serves until its stdin ends.
"""

import hashlib
import hmac
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from localbucket import S3Error, S3Handler

KEY, SECRET, REGION, BUCKET = "toy-key", "toy-s3cret/that+nobody=sees", "us-east-1", "lab"


class Server(ThreadingHTTPServer):
    """What is served, and what is wrong with it: `fault` is called before each request with (method, path)."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, port: int = 0) -> None:
        (folder / BUCKET).mkdir(parents=True, exist_ok=True)
        super().__init__(("127.0.0.1", port), type("Handler", (_Handler,), {"data_root": folder}))
        self.folder = folder
        self.requests: list[tuple[str, str]] = []
        self.fault: Any = None

    @property
    def options(self) -> dict[str, str]:
        """The storage options of a client."""
        return {
            "aws_endpoint": f"http://127.0.0.1:{self.server_address[1]}",
            "aws_access_key_id": KEY,
            "aws_secret_access_key": SECRET,
            "aws_region": REGION,
            "allow_http": "true",
        }

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, killed or out of patience, is nothing to report."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server in a thread of this process."""
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(S3Handler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""

    def _dispatch(self, action: Any) -> None:
        server: Any = self.server
        server.requests.append((self.command, self.path))
        if server.fault is not None:
            server.fault(self.command, self.path)
        wrong = _unsigned(self.command, self.path, self.headers)
        if wrong:
            self._read_body()
            self._send_error(S3Error(HTTPStatus.FORBIDDEN, wrong, "The request is not signed by a known key."))
            return
        super()._dispatch(action)

    def _post_request(self, bucket: str, key: str) -> None:
        if key or "delete" not in self.query:
            super()._post_request(bucket, key)
            return
        asked = ElementTree.fromstring(self._read_body())
        space = asked.tag.partition("}")[0] + "}" if asked.tag.startswith("{") else ""
        answer = ElementTree.Element("DeleteResult")
        for name in asked.iter(f"{space}Key"):
            path = self._object_path(bucket, str(name.text))
            path.unlink(missing_ok=True)
            ElementTree.SubElement(ElementTree.SubElement(answer, "Deleted"), "Key").text = name.text
        self._send_xml(answer)


def _unsigned(method: str, target: str, headers: Any) -> str:
    """What is wrong with the signature of a request (AWS Signature Version 4); "" when nothing is."""
    scheme, _, rest = headers.get("Authorization", "").partition(" ")
    parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    if scheme != "AWS4-HMAC-SHA256":
        return "AccessDenied"
    key, day, region, service, _ = parts["Credential"].split("/")
    if key != KEY:
        return "InvalidAccessKeyId"
    url = urlsplit(target)
    words = sorted(parse_qsl(url.query, keep_blank_values=True))
    query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in words)
    signed = parts["SignedHeaders"].split(";")
    lines = [f"{name}:{' '.join(headers.get(name, '').split())}" for name in signed]
    path = quote(unquote(url.path), safe="/-_.~")
    request = "\n".join([method, path, query, *lines, "", ";".join(signed), headers["x-amz-content-sha256"]])
    scope = f"{day}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join([scheme, headers["x-amz-date"], scope, digest])
    secret = f"AWS4{SECRET}".encode()
    for word in (day, region, service, "aws4_request"):
        secret = hmac.new(secret, word.encode(), hashlib.sha256).digest()
    right = hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
    return "" if hmac.compare_digest(right, parts["Signature"]) else "SignatureDoesNotMatch"


def main() -> None:
    """Serve a folder until stdin ends."""
    with serving(Path(sys.argv[1])) as server:
        print(server.server_address[1], flush=True)
        sys.stdin.read()
        time.sleep(0)


if __name__ == "__main__":
    main()
