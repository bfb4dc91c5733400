"""Opening a session on an OPC UA server, and finding the configured variables on it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from asyncua import ua
from asyncua.client.client import Client
from asyncua.crypto.security_policies import (
    SecurityPolicy,
    SecurityPolicyAes256Sha256RsaPss,
    SecurityPolicyBasic256Sha256,
)
from asyncua.crypto.uacrypto import CertProperties
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.uaerrors import UaError
from cryptography import x509

from connectors import secrets
from connectors.errors import ConnectorConfigError, ConnectorError
from connectors.opcua.config import OpcUaConfig, OpcUaTag

# asyncua logs whole requests, logins included, and every lost connection with a trace; what matters is raised as an error.
logging.getLogger("asyncua").setLevel(logging.CRITICAL)

_T = TypeVar("_T")

_POLICIES: dict[str, type[SecurityPolicy]] = {
    "Basic256Sha256": SecurityPolicyBasic256Sha256,
    "Aes256Sha256RsaPss": SecurityPolicyAes256Sha256RsaPss,
}

FAILURES = (OSError, TimeoutError, UaError)
"""What asyncua raises when a server cannot be reached, refuses, or answers nonsense."""


async def connect(config: OpcUaConfig, client: Client) -> None:
    """Open channel and session. Raises ConnectorError; ``client`` must be disconnected by the caller in any case."""
    await _secure(config, client)
    if config.user and config.password is not None:
        client.set_user(config.user)
        client.set_password(secrets.read(config.password))
    try:
        await client.connect()
    except (OSError, TimeoutError) as error:
        raise ConnectorError(
            "FF-OPCUA-001",
            f"no OPC UA server answers at {config.endpoint}: {error or error.__class__.__name__}",
            hint="check address, port and firewall, and that the server runs",
        ) from error
    except Exception as error:  # a refusal in an unusual form makes asyncua trip: AssertionError, InvalidSignature, ...
        raise ConnectorError(
            "FF-OPCUA-002",
            f"the server at {config.endpoint} gives no session under security {config.security}: "
            f"{error.__class__.__name__}: {error}",
            hint="check user and password, that the server offers this security and mode, that it trusts this gateway's "
            "certificate (see its list of rejected ones), and that server_certificate is the one it uses now",
        ) from error


def new_client(config: OpcUaConfig) -> Client:
    """A client that is not connected yet."""
    client = Client(config.endpoint, timeout=config.timeout_s, watchdog_intervall=config.timeout_s)
    client.session_timeout = int(
        1000 * max(60.0, 4 * config.timeout_s)
    )  # a dead gateway's session frees its place soon
    client.name = client.description = f"fedfab {config.name}"
    return client


@asynccontextmanager
async def session(config: OpcUaConfig) -> AsyncIterator[Client]:
    """A session for the time of a block. Raises ConnectorError."""
    client = new_client(config)
    try:
        await connect(config, client)
        yield client
    finally:
        await client.disconnect()


@dataclass(frozen=True, slots=True)
class Nodes:
    """What became of the configured tags on a server."""

    found: list[tuple[OpcUaTag, ua.NodeId]]
    failed: dict[str, str]
    """Why, by name of the tag."""


async def find_nodes(config: OpcUaConfig, client: Client) -> Nodes:
    """Look up every tag. Raises one of FAILURES when the connection fails."""
    namespaces: list[str] = []
    if any("nsu=" in tag.node for tag in config.tag):
        namespaces = await client.get_namespace_array()
    nodes = Nodes([], {})
    for tag in config.tag:
        if tag.node:
            try:
                nodes.found.append((tag, _node_id(tag.node, namespaces)))
            except ValueError as error:
                nodes.failed[tag.name] = str(error)
    for tags in chunks([tag for tag in config.tag if tag.path], config.chunk):
        objects = ua.NodeId(ua.Int32(ObjectIds.ObjectsFolder))
        paths = [ua.BrowsePath(objects, ua.RelativePath.from_string(tag.path)) for tag in tags]
        for tag, result in zip(tags, await client.uaclient.translate_browsepaths_to_nodeids(paths), strict=True):
            if result.StatusCode.is_good() and result.Targets:
                nodes.found.append((tag, result.Targets[0].TargetId))
            else:
                nodes.failed[tag.name] = f"{tag.path}: {result.StatusCode.name}"
    return nodes


def item_of(tag: OpcUaTag, node: ua.NodeId) -> ua.ReadValueId:
    """What to read or monitor for ``tag``: the value of ``node``, or one element of it."""
    item = ua.ReadValueId(node, AttributeIds.Value)
    if tag.index is not None:
        item.IndexRange = str(tag.index)
    return item


def chunks(whole: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """``whole`` in parts of at most ``size``."""
    return (whole[start : start + size] for start in range(0, len(whole), size))


def _node_id(text: str, namespaces: list[str]) -> ua.NodeId:
    if text.startswith("nsu="):
        uri, identifier = text.removeprefix("nsu=").split(";", 1)
        if uri not in namespaces:
            raise ValueError(f"the server has no namespace {uri}, only {', '.join(namespaces)}")
        text = f"ns={namespaces.index(uri)};{identifier}"
    try:
        return ua.NodeId.from_string(text)
    except UaError as error:
        raise ValueError(f"{text} is not a node id") from error


async def _secure(config: OpcUaConfig, client: Client) -> None:
    if config.certificate is None or config.key is None or config.server_certificate is None:
        return  # security is "None": the configuration has all three or none
    try:
        certificate, key, server = map(_credential, (config.certificate, config.key, config.server_certificate))
        client.application_uri = _application_uri(config.certificate.read_bytes())
        await client.set_security(
            _POLICIES[config.security],
            certificate=certificate,
            private_key=key,
            server_certificate=server,
            mode=ua.MessageSecurityMode[config.mode],
        )
    except (OSError, ValueError, TypeError) as error:
        raise ConnectorConfigError(
            "FF-OPCUA-005",
            f"certificate, key or server_certificate of source {config.name} cannot be used: {error}",
            hint="they are X.509 in DER or PEM, the key without a passphrase; the certificate needs a URI as "
            "subjectAltName, which is the gateway's application URI",
        ) from error


def _credential(path: Path) -> CertProperties:
    """PEM or DER by content: file names tell little."""
    content = path.read_bytes()
    return CertProperties(content, "pem" if _is_pem(content) else "der")


def _is_pem(content: bytes) -> bool:
    return content.startswith(b"-----")


def _application_uri(content: bytes) -> str:
    """The URI in the certificate's subjectAltName: servers refuse a session under another (OPC UA Part 6, 6.2.2)."""
    certificate = (
        x509.load_pem_x509_certificate(content) if _is_pem(content) else x509.load_der_x509_certificate(content)
    )
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise ValueError("the certificate has no subjectAltName") from error
    uris: list[str] = names.get_values_for_type(x509.UniformResourceIdentifier)
    if not uris:
        raise ValueError("the certificate has no URI among its subjectAltNames")
    return uris[0]
