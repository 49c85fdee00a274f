"""Pictures with Content Credentials (C2PA), signed by authorities made on the spot."""

from __future__ import annotations

import datetime as dt
import io
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from tests import pictures

AI_MADE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
MADE = {"action": "c2pa.created", "digitalSourceType": AI_MADE, "softwareAgent": {"name": "Some Generator", "version": "3"}}
_NO_USE = dict.fromkeys(
    "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign "
    "encipher_only decipher_only".split(),
    False,
)


def _name(common: str) -> x509.Name:
    oids = {NameOID.COUNTRY_NAME: "DE", NameOID.ORGANIZATION_NAME: "Test Organization", NameOID.COMMON_NAME: common}
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in oids.items()])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


@dataclass(frozen=True)
class Authority:
    """A root and one signer (ES256) by the certificate profile of C2PA 2.1, 14.5; the signer lives `seconds` yet."""

    seconds: float = 30 * 86400.0
    ocsp: str = ""

    @cached_property
    def _keys(self) -> tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePrivateKey]:
        return ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def _certificate(self, subject: str, key: ec.EllipticCurvePrivateKey, seconds: float) -> x509.CertificateBuilder:
        root, now = self._keys[0], dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder(_name("Test Root"), _name(subject), key.public_key(), x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=60))
            .not_valid_after(now + dt.timedelta(seconds=seconds))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False)
        )

    @cached_property
    def anchor(self) -> str:
        """The root, PEM."""
        use = x509.KeyUsage(**{**_NO_USE, "key_cert_sign": True, "crl_sign": True})
        made = self._certificate("Test Root", self._keys[0], 365 * 86400.0).add_extension(
            x509.BasicConstraints(True, None), critical=True
        )
        return _pem(made.add_extension(use, critical=True).sign(self._keys[0], hashes.SHA256()))

    @cached_property
    def chain(self) -> str:
        """The signer and the root, PEM."""
        use = x509.KeyUsage(**{**_NO_USE, "digital_signature": True})
        made = (
            self._certificate("Test Signer", self._keys[1], self.seconds)
            .add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(use, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        )
        if self.ocsp:
            place = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(self.ocsp))
            made = made.add_extension(x509.AuthorityInformationAccess([place]), critical=False)
        return _pem(made.sign(self._keys[0], hashes.SHA256())) + self.anchor

    def sign(self, data: bytes, kind: str = "PNG", **told: Any) -> bytes:
        """The file with a manifest; `told`: `actions`, `program`, `assertions`, `remote` (its address elsewhere)."""
        key = self._keys[1].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        actions = {"label": "c2pa.actions.v2", "data": {"actions": told.get("actions", [MADE])}}
        manifest = {
            "claim_generator_info": [{"name": told.get("program", "Unmask tests"), "version": "1"}],
            "assertions": [actions, *told.get("assertions", [])],
        }
        info = c2pa.C2paSignerInfo(b"es256", self.chain.encode(), key, None)
        plain = c2pa.Context(c2pa.Settings.from_dict({"verify": {"verify_after_sign": False}}))
        out = io.BytesIO()
        with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(manifest), context=plain) as builder:
            if told.get("remote"):
                builder.set_remote_url(told["remote"])
                builder.set_no_embed()
            builder.sign(signer, f"image/{kind.lower()}", io.BytesIO(data), out)
        return out.getvalue()

    def signed(self, kind: str = "PNG", **told: Any) -> bytes:
        """A small picture with a manifest."""
        return self.sign(pictures.encode(pictures.scene(), kind), kind, **told)


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Names and contents of a PNG's chunks."""
    found, at = [], 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """The PNG of such chunks."""
    return pictures.PNG_MAGIC + b"".join(pictures.png_chunk(name, body) for name, body in chunks)


def forged(authority: Authority, head: bytes, filler: bytes) -> bytes:
    """A PNG with a manifest in which the CBOR of some text of at least 64 KiB was replaced: its `head` and all that follows."""
    data = bytearray(authority.signed(assertions=[{"label": "org.test.x", "data": {"x": "A" * len(filler)}}]))
    at = data.index(b"A" * len(filler)) - 5
    data[at : at + 5] = head
    data[at + 5 : at + 5 + len(filler)] = filler
    return png_of(png_chunks(bytes(data)))
