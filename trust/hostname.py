"""Whether a certificate is for the host that was dialled (RFC 9525): exact DNS names and IP addresses, no wildcards."""

from __future__ import annotations

import ipaddress

from cryptography import x509

from trust.errors import TrustError


def check_hostname(certificate: x509.Certificate, host: str) -> None:
    """Raises TrustError where ``host``, a DNS name or an IP address, is not in the certificate's subjectAltName."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    known = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    known += [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    if _canonical(host) not in known:
        raise wrong_host(host, f"the certificate is for {', '.join(known) or 'no host'}")


def wrong_host(host: str, why: str) -> TrustError:
    """The certificate does not stand for the host that was dialled."""
    return TrustError(
        "FF-TLS-002",
        f"expected a certificate for {host!r}: {why}",
        hint="dial a name the certificate has, or issue it with --host NAME for each name and address",
    )


def _canonical(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower().rstrip(".")
