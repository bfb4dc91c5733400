"""What a plant engineer writes about an OPC UA server; checked in full without a network."""

from __future__ import annotations

import math
import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from common.options import Address, LocalFile
from common.secret import Secret
from connectors.contract import SourceConfig, TagConfig

Security = Literal["None", "Basic256Sha256", "Aes256Sha256RsaPss"]

_NODE = re.compile(r"(ns=\d+;|nsu=[^;]+;)?(i=\d+|s=.+|g=[0-9a-fA-F-]{36}|b=.+)", re.DOTALL)
_PATH = re.compile(r"(/(\d+:)?([^/.<>:#!&]|&.)+)+")


class OpcUaTag(TagConfig):
    """One variable, by node id or by browse path."""

    node: str = Field(
        default="",
        description="Node id: 'ns=2;s=Press.Temp', 'ns=2;i=1001', or with the namespace's URI, which survives a restart "
        "that renumbers namespaces: 'nsu=http://vendor/press;s=Temp'.",
    )
    path: str = Field(
        default="",
        description="Instead of node: browse path below the Objects folder, '/2:Press/2:Temperature'. "
        "In a name, & stands before each of / . < > : # ! &.",
    )
    index: int | None = Field(default=None, ge=0, description="Which element, where the variable is an array.")

    @field_validator("node")
    @classmethod
    def _node_is_well_formed(cls, node: str) -> str:
        if node and not _NODE.fullmatch(node):
            raise ValueError(f'"{node}" is not a node id; expected e.g. "ns=2;s=Press.Temp" or "ns=2;i=1001"')
        return node

    @field_validator("path")
    @classmethod
    def _path_is_well_formed(cls, path: str) -> str:
        if path and not _PATH.fullmatch(path):
            raise ValueError(f'"{path}" is not a browse path; expected e.g. "/2:Press/2:Temperature"')
        return path

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if bool(self.node) == bool(self.path):
            raise ValueError(f'tag "{self.name}" needs either node or path, and not both')
        return self


class OpcUaConfig(SourceConfig):
    """One OPC UA server."""

    type: Literal["opcua"] = Field(default="opcua", description="Which connector reads it: OPC UA.")
    endpoint: Address = Field(description="Address of the server: 'opc.tcp://press-1:4840/path'.")
    tag: tuple[OpcUaTag, ...] = Field(min_length=1, description="The variables to follow.")
    publishing_s: float = Field(
        default=0.5, ge=0.01, le=3600.0, description="Seconds between two deliveries of collected changes."
    )
    sampling_s: float = Field(
        default=0.1,
        ge=0.0,
        le=3600.0,
        description="Seconds between two looks at a variable; 0: as fast as the server can.",
    )
    queue_size: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="Changes of one variable the server keeps between two deliveries. "
        "0: enough for four publishing intervals at the sampling interval.",
    )
    chunk: int = Field(
        default=500, ge=1, le=10_000, description="Variables in one request; some small servers bear few."
    )
    buffer: int = Field(
        default=100_000,
        ge=1000,
        description="Values kept here while the gateway is busy. When full, the next delivery is not asked for and the "
        "server's queues fill instead.",
    )
    timeout_s: float = Field(default=5.0, gt=0.0, le=300.0, description="Seconds to wait for each answer.")
    security: Security = Field(default="None", description="Security policy of the channel.")
    mode: Literal["SignAndEncrypt", "Sign"] = Field(
        default="SignAndEncrypt", description="How the channel is protected where security is not 'None'."
    )
    certificate: LocalFile | None = Field(default=None, description="This gateway's certificate, .der or .pem.")
    key: LocalFile | None = Field(default=None, description="The key of the certificate, .pem.")
    server_certificate: LocalFile | None = Field(
        default=None, description="The server's certificate, .der or .pem: the gateway talks to no other."
    )
    user: str = Field(default="", description="User name; empty: anonymous.")
    password: Secret | None = Field(
        default=None, description='Of the user: { file = "..." }, { credential = "NAME" } or { env = "NAME" }.'
    )
    allow_plain_password: bool = Field(
        default=False,
        description="Accept that the password may cross the network unencrypted where security is 'None'.",
    )

    @field_validator("endpoint")
    @classmethod
    def _is_binary_tcp(cls, endpoint: str) -> str:
        if not re.match(r"opc\.tcp://[^/:]+", endpoint):
            raise ValueError(f'"{endpoint}" is not an address of OPC UA; expected e.g. "opc.tcp://press-1:4840"')
        return endpoint

    @model_validator(mode="after")
    def _security_is_whole(self) -> Self:
        files = {"certificate": self.certificate, "key": self.key, "server_certificate": self.server_certificate}
        if self.security == "None":
            given = [name for name, file in files.items() if file is not None]
            if given:
                raise ValueError(
                    f'{" and ".join(given)} would not be used: security is "None"; '
                    'set security = "Basic256Sha256" or "Aes256Sha256RsaPss"'
                )
        else:
            absent = [name for name, file in files.items() if file is None]
            if absent:
                raise ValueError(f'security = "{self.security}" also needs {" and ".join(absent)}')
        return self

    @model_validator(mode="after")
    def _login_is_whole(self) -> Self:
        if bool(self.user) != (self.password is not None):
            raise ValueError("user and password belong together; leave out both to log in anonymously")
        if self.user and self.security == "None" and not self.allow_plain_password:
            raise ValueError(
                "a password needs a protected channel: set security, or allow_plain_password = true if the network is trusted"
            )
        return self

    @property
    def server_queue(self) -> int:
        """Changes of one variable that the server is asked to keep."""
        if self.queue_size:
            return self.queue_size
        return max(10, min(100_000, math.ceil(4 * self.publishing_s / max(self.sampling_s, 0.01))))
