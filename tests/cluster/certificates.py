"""The cluster's certificates: one authority, servers, clients, and the keys of service-account tokens.

A client certificate's common name is the user and its organizations are the groups: that is how
Kubernetes reads x509. Keys are P-256: made in a millisecond. What lies in the folder already is used
again, so that a cluster started on kept state accepts the kubeconfigs it gave out before.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LIFETIME = dt.timedelta(days=365)
_SKEW = dt.timedelta(hours=1)


class Certificates:
    """The authority and everything it signs, as PEM files in one folder (mode 0600)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.authority = folder / "ca.crt"
        authority_key = folder / "ca.key"
        if not (self.authority.exists() and authority_key.exists()):
            self._make_authority(authority_key)
        self._issuer = x509.load_pem_x509_certificate(self.authority.read_bytes())
        self._issuer_key = _load_key(authority_key)

    def client(self, user: str, groups: Sequence[str] = ()) -> tuple[Path, Path]:
        """Return (certificate, key) of a user; made at every call, because groups may differ."""
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        names.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
        return self._issue(f"client-{_file_name(user)}", names, ExtendedKeyUsageOID.CLIENT_AUTH, [])

    def server(self, name: str, hosts: Sequence[str]) -> tuple[Path, Path]:
        """Return (certificate, key) of a server that is reached by these names and addresses."""
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        return self._issue(
            f"server-{name}", subject, ExtendedKeyUsageOID.SERVER_AUTH, [_host(h) for h in hosts]
        )

    def service_account_keys(self) -> tuple[Path, Path]:
        """Return (public, private) key of service-account tokens."""
        public, private = self.folder / "service-accounts.pub", self.folder / "service-accounts.key"
        if not (public.exists() and private.exists()):
            key = ec.generate_private_key(ec.SECP256R1())
            _write(private, _pem(key))
            _write(
                public,
                key.public_key().public_bytes(
                    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
                ),
            )
        return public, private

    def _make_authority(self, key_path: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dormouse-test-cluster")])
        certificate = (
            _builder(name, name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        _write(key_path, _pem(key))
        _write(self.authority, certificate.public_bytes(serialization.Encoding.PEM))

    def _issue(
        self,
        file_name: str,
        subject: list[x509.NameAttribute[str]],
        usage: x509.ObjectIdentifier,
        hosts: list[x509.GeneralName],
    ) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(x509.Name(subject), self._issuer.subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            # Python 3.13 verifies strictly (RFC 5280) and refuses a certificate without this.
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._issuer_key.public_key()),
                critical=False,
            )
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        certificate = builder.sign(self._issuer_key, hashes.SHA256())
        paths = self.folder / f"{file_name}.crt", self.folder / f"{file_name}.key"
        _write(paths[0], certificate.public_bytes(serialization.Encoding.PEM))
        _write(paths[1], _pem(key))
        return paths


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LIFETIME)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _file_name(user: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in user)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as handle:
        handle.write(content)
