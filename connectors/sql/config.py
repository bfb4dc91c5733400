"""What a plant engineer writes about a database; checked in full without a network."""

from __future__ import annotations

from typing import Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from common.options import Address
from common.secret import Secret
from connectors.contract import SourceConfig, TagConfig

DRIVERS = ("sqlite", "postgresql+psycopg", "mysql+pymysql", "mariadb+pymysql")
"""Databases with a tested driver, as they begin a URL."""


class SqlTag(TagConfig):
    """One column."""

    column: str = Field(min_length=1, description="Column of the table or query, in the spelling the database shows.")
    text: bool = Field(
        default=False,
        description="Deliver the value as text, which keeps every digit of a DECIMAL; else it becomes a float.",
    )


class SqlConfig(SourceConfig):
    """One table or query that grows."""

    type: Literal["sql"] = Field(default="sql", description="Which connector reads it: SQL.")
    url: Address = Field(
        description="Where: 'sqlite:////var/plant.db', 'postgresql+psycopg://reader@host/db', 'mysql+pymysql://reader@host/db'. "
        "Never with a password."
    )
    password: Secret | None = Field(
        default=None, description='Of the user: { file = "..." }, { credential = "NAME" } or { env = "NAME" }.'
    )
    table: str = Field(default="", description="Table or view to read, 'name' or 'schema.name'.")
    query: str = Field(
        default="", description="Instead of table: a SELECT, without ORDER BY, LIMIT or final semicolon."
    )
    cursor: str = Field(
        min_length=1,
        description="Column that only grows, best a unique number the database gives. Rows are read in its order, each once.",
    )
    time: str = Field(default="", description="Column with the time of the row; empty: the time of reading.")
    timezone: str = Field(
        default="", description="Zone of times that say none, e.g. 'Asia/Shanghai' or 'UTC'. Needed for such columns."
    )
    time_unit: Literal["s", "ms", "us", "ns"] = Field(
        default="s", description="Where the time column is a number since 1970-01-01 UTC: of what."
    )
    batch: int = Field(default=1000, ge=1, le=100_000, description="Rows read at a time.")
    every_s: float = Field(
        default=1.0,
        ge=0.01,
        le=86400.0,
        description="Seconds to wait when there was no new row; none while rows are waiting.",
    )
    timeout_s: float = Field(default=10.0, ge=1.0, le=3600.0, description="Seconds a connection or a query may take.")
    tag: tuple[SqlTag, ...] = Field(min_length=1, description="The columns to read.")

    @field_validator("url")
    @classmethod
    def _has_a_driver(cls, url: str) -> str:
        driver = url.split(":", 1)[0]
        if "://" not in url or driver not in DRIVERS:
            raise ValueError(
                f'"{driver}" is not a known kind of database; the URL begins with one of {", ".join(DRIVERS)}'
            )
        return url

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, zone: str) -> str:
        if zone:
            try:
                ZoneInfo(zone)
            except (ZoneInfoNotFoundError, ValueError) as error:
                raise ValueError(f'there is no time zone "{zone}"; expected e.g. "Asia/Shanghai" or "UTC"') from error
        return zone

    @field_validator("query")
    @classmethod
    def _is_one_select(cls, query: str) -> str:
        if query and query.split(None, 1)[0].lower() not in ("select", "with"):
            raise ValueError("the query must be a SELECT")
        if ";" in query:
            raise ValueError("the query must be one statement, without a semicolon")
        return query

    @model_validator(mode="after")
    def _reads_one_thing(self) -> Self:
        if bool(self.table) == bool(self.query.strip()):
            raise ValueError("give either table or query, and not both")
        if self.query:
            head = self.query.lower()
            for column in (self.cursor, self.time, *(tag.column for tag in self.tag)):
                if column.lower() not in head and "*" not in head:
                    raise ValueError(f'the query does not select the column "{column}"')
        if self.timezone and not self.time:
            raise ValueError("timezone has no meaning without time, the column it is for")
        return self

    def columns(self) -> tuple[str, ...]:
        """Columns to select, each once: the cursor, the time, those of the tags."""
        wanted = (self.cursor, *([self.time] if self.time else []), *(tag.column for tag in self.tag))
        return tuple(dict.fromkeys(wanted))
