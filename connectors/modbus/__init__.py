"""Modbus TCP: polls registers and bits of one device or gateway, merged into few reads. Never writes."""
