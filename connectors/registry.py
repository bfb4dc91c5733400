"""Every type of source, one line each. Models are imported here; a protocol's library only when a source of its type is created."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import cast

from connectors.contract import Connector, ConnectorType
from connectors.errors import ConnectorConfigError
from connectors.modbus.config import ModbusConfig
from connectors.opcua.config import OpcUaConfig
from connectors.sql.config import SqlConfig


def _late(module: str, name: str) -> Callable[..., Connector]:
    """The class ``name`` of ``module``, imported when the first connector of its type is made."""
    return lambda config: cast("Connector", getattr(import_module(module), name)(config))


_TYPES = {
    "modbus": ConnectorType(ModbusConfig, _late("connectors.modbus.client", "ModbusConnector")),
    "opcua": ConnectorType(OpcUaConfig, _late("connectors.opcua.client", "OpcUaConnector")),
    "sql": ConnectorType(SqlConfig, _late("connectors.sql.client", "SqlConnector")),
}


def types() -> tuple[str, ...]:
    """Names of all types, sorted."""
    return tuple(sorted(_TYPES))


def get(name: str) -> ConnectorType:
    """The configuration model of a type and how to make its connector. Raises ConnectorConfigError."""
    if name in _TYPES:
        return _TYPES[name]
    near = get_close_matches(name, _TYPES, n=1)
    raise ConnectorConfigError(
        "FF-SOURCE-002",
        f'there is no source of type "{name}"; known types: {", ".join(types())}',
        hint=f'did you mean "{near[0]}"?' if near else "see the README of each type for what it reads",
    )
