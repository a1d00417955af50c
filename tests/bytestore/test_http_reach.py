"""How an http client reaches its server: through TLS that is verified, and through proxies."""

import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from mergepipe.bytestore.http import HttpByteStore
from mergepipe.bytestore.retries import Retries
from mergepipe.errors import MergepipeError, RemoteUnreachable, UsageError
from tests.bytestore.bad_lines import answering

QUICKLY = Retries(again=1, first_s=0.01, longest_s=0.01)
REPLY = b"HTTP/1.1 200 OK\r\nMergepipe-Protocol: 1\r\nContent-Length: 2\r\n\r\nhi"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """For localhost, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    file = tmp_path / "certificate.pem"
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    where = ["-keyout", str(file), "-out", str(tmp_path / "public.pem")]
    subprocess.run([*words.split(), *names, *where], check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + (tmp_path / "public.pem").read_bytes())
    return file


def test_certificates_are_verified(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]

    def serve() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(client, server_side=True) as secured:
                    secured.recv(65536)
                    secured.sendall(REPLY)
            except OSError:
                client.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with (
            HttpByteStore(f"https://localhost:{port}", retries=QUICKLY) as store,
            pytest.raises(RemoteUnreachable, match="cannot prove"),
        ):
            store.get("HEAD")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with HttpByteStore(f"https://localhost:{port}", retries=QUICKLY) as store:
            assert store.get("HEAD") == b"hi"
        with (
            HttpByteStore(f"https://127.0.0.1:{port}", retries=QUICKLY) as store,
            pytest.raises(RemoteUnreachable, match="cannot prove"),
        ):
            store.get("HEAD")  # a good certificate, for another name
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    heads: list[bytes] = []

    def script(client: socket.socket, head: bytes) -> None:
        heads.append(head)
        client.sendall(REPLY)

    with answering(script) as proxy:
        monkeypatch.setenv("http_proxy", proxy.replace("://", "://me:p%40ss@"))
        with HttpByteStore("http://models.invalid:81/x", retries=QUICKLY) as store:
            assert store.get("HEAD") == b"hi"
        assert heads[0].startswith(b"GET http://models.invalid:81/x/v1/value/HEAD HTTP/1.1\r\n")
        assert b"Proxy-Authorization: Basic bWU6cEBzcw==\r\n" in heads[0]
        monkeypatch.setenv("no_proxy", "models.invalid")
        with (
            HttpByteStore("http://models.invalid:81", retries=QUICKLY) as store,
            pytest.raises(RemoteUnreachable),
        ):
            store.get("HEAD")
        monkeypatch.setenv("https_proxy", proxy)
        with (
            HttpByteStore("https://others.invalid", token="a-secret", retries=QUICKLY) as store,
            pytest.raises(RemoteUnreachable),
        ):
            store.get("HEAD")
        assert heads[1].startswith(b"CONNECT others.invalid:443 HTTP/1.")
        assert b"a-secret" not in heads[1]
        with answering(script) as direct, HttpByteStore(direct) as store:
            assert store.get("HEAD") == b"hi"  # loopback is no proxy's business
        assert heads[-1].startswith(b"GET /v1/value/HEAD")
    monkeypatch.setenv("https_proxy", "socks5://somewhere")
    with pytest.raises(UsageError, match="https_proxy"):
        HttpByteStore("https://others.invalid")


def test_a_proxy_that_wants_a_password_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def script(client: socket.socket, head: bytes) -> None:
        client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    with answering(script) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("https_proxy", proxy)
        for url in ("http://models.invalid", "https://models.invalid"):
            with (
                HttpByteStore(url, token="a-secret", retries=QUICKLY) as store,
                pytest.raises(MergepipeError, match="proxy") as caught,
            ):
                store.get("HEAD")
            assert "no_proxy" in caught.value.hint
            assert "token" not in caught.value.hint
