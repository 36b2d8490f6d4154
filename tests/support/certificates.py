"""Certificates for tests: good ones, and each kind of wrong one. The good ones are of `ca_file`."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_HOSTS = ("127.0.0.1", "localhost", "::1")
_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate with its chain, and its private key; `both` has them in one file."""

    cert: Path
    key: Path
    both: Path


class Certificates:
    """All of them, made in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca_file))
        now = datetime.datetime.now(datetime.UTC)
        self.good = self._issue("good", *_HOSTS)
        self.expired = self._issue("expired", *_HOSTS, not_before=now - 20 * _DAY, not_after=now - 10 * _DAY)
        self.wrong_host = self._issue("wrong-host", "elsewhere.example")
        self.client = self._issue("client", "alice@clients.example")
        self.self_signed = self._self_signed("self-signed", now)

    def _issue(self, name: str, *identities: str, **times: datetime.datetime) -> KeyPair:
        leaf = self._ca.issue_cert(*identities, **times)
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return self._write(name, chain, leaf.private_key_pem.bytes())

    def _self_signed(self, name: str, now: datetime.datetime) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self-signed")])
        names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
        cert = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(key, hashes.SHA256())
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return self._write(name, cert.public_bytes(serialization.Encoding.PEM), pem)

    def _write(self, name: str, cert: bytes, key: bytes) -> KeyPair:
        pair = KeyPair(
            cert=self._folder / f"{name}.pem",
            key=self._folder / f"{name}.key",
            both=self._folder / f"{name}.both.pem",
        )
        pair.cert.write_bytes(cert)
        pair.key.write_bytes(key)
        pair.both.write_bytes(cert + key)
        return pair
