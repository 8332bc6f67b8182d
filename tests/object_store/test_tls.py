"""A private store behind TLS with a certificate authority of its own, named by AWS_CA_BUNDLE."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from object_store import StoreError, open_store
from tests.object_store.answering_server import AnsweringServer, Reply, Request, s3_object

LISTING = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


def make_authority_and_certificate(folder: Path) -> None:
    """Write ca.pem, and server.pem with its key, for 127.0.0.1."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])

    def certificate(
        subject: x509.Name, public_key: ec.EllipticCurvePublicKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(ca_name).public_key(public_key)
        builder = builder.serial_number(x509.random_serial_number()).add_extension(extension, critical=True)
        now = datetime.now(UTC)
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        return builder.sign(ca_key, hashes.SHA256())

    ca = certificate(ca_name, ca_key.public_key(), x509.BasicConstraints(ca=True, path_length=None))
    own = certificate(name, key.public_key(), x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]))
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    (folder / "ca.pem").write_bytes(ca.public_bytes(pem))
    (folder / "server.pem").write_bytes(
        own.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    )


@pytest.fixture
def tls_server(answering_server: AnsweringServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AnsweringServer:
    make_authority_and_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    answering_server.use_tls(context)
    monkeypatch.setenv("AWS_ENDPOINT_URL", answering_server.url)

    def answer(request: Request) -> Reply:
        return Reply(200, LISTING) if "list-type" in request.path else s3_object(b"1", "weak", request)

    answering_server.answer = answer
    return answering_server


def test_a_private_authority_is_trusted_when_it_is_named(
    tls_server: AnsweringServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    store = open_store("s3://bucket", retry_for_s=0)
    assert store.get_bytes("x") == b"1"
    assert list(store.list()) == []
    assert tls_server.url.startswith("https://")


def test_an_unknown_authority_is_refused_and_said(tls_server: AnsweringServer):
    store = open_store("s3://bucket", retry_for_s=0)
    for ask in [lambda: store.get_bytes("x"), lambda: list(store.list())]:
        with pytest.raises(
            StoreError, match=r"certificate of https://127.0.0.1:\d+ is not trusted .* AWS_CA_BUNDLE"
        ) as told:
            ask()
        assert told.value.exit_code == 2
    assert tls_server.requests == []
