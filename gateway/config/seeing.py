"""How the gateway is watched: metrics, alert rules, and who is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from common.options import Address, LocalFile, is_loopback
from common.secret import Secret
from connectors.contract import Name
from gateway.config.section import Section

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")

DEFAULT_RULES: Mapping[str, Mapping[str, Any]] = {
    "no-data": {
        "metric": "fedfab_source_data_age_seconds",
        "above": 120.0,
        "severity": "critical",
        "message": "source {source} has delivered nothing for {value} s",
    },
    "bad-tags": {
        "metric": "fedfab_source_bad_tags_ratio",
        "above": 0.2,
        "clear": 0.1,
        "for_s": 120.0,
        "message": "{value} of the tags of source {source} are bad or too old",
    },
    "disk-full": {
        "metric": "fedfab_box_disk_used_ratio",
        "above": 0.9,
        "clear": 0.85,
        "for_s": 60.0,
        "severity": "critical",
        "message": "the disk of {folder} is full to {value}",
    },
    "memory-full": {
        "metric": "fedfab_box_memory_used_ratio",
        "above": 0.95,
        "clear": 0.9,
        "for_s": 60.0,
        "message": "memory is in use to {value}",
    },
    "cpu-busy": {
        "metric": "fedfab_box_load_ratio",
        "above": 2.0,
        "clear": 1.5,
        "for_s": 600.0,
        "message": "the load of each core is {value}",
    },
    "clock-off": {
        "metric": "fedfab_federation_clock_skew_seconds",
        "magnitude": True,
        "above": 30.0,
        "clear": 10.0,
        "message": "this clock and the coordinator's differ by {value} s",
    },
    "coordinator-away": {
        "metric": "fedfab_federation_link_up",
        "below": 1.0,
        "for_s": 600.0,
        "message": "coordinator {peer} cannot be reached",
    },
    "buffer-filling": {
        "metric": "fedfab_buffer_depth",
        "divided_by": "fedfab_buffer_limit",
        "above": 0.8,
        "clear": 0.5,
        "message": "buffer {buffer} is full to {value}",
    },
    "drops": {
        "metric": "fedfab_buffer_dropped_total",
        "increase_over_s": 300.0,
        "above": 0.0,
        "severity": "critical",
        "message": "{value} items of buffer {buffer} were dropped within 5 minutes",
    },
    "worker-restarts": {
        "metric": "fedfab_worker_deaths_total",
        "increase_over_s": 600.0,
        "above": 2.0,
        "message": "worker {worker} died {value} times within 10 minutes",
    },
    "loss-rising": {
        "metric": "fedfab_task_loss_rising_rounds",
        "above": 2.0,
        "message": "the training loss of {group} in task {task} has risen {value} rounds in a row",
    },
    "model-old": {
        "metric": "fedfab_model_age_seconds",
        "above": 90 * 86400.0,
        "severity": "info",
        "message": "model {model} was made {value} s ago",
    },
}
"""The rules that are there without a word in the file, by name."""


class Metrics(Section):
    """What `GET /metrics` shows to Prometheus."""

    tag_old_after_s: float = Field(
        default=300.0,
        ge=0,
        description="A tag without a new value for longer counts as bad. 0: never, for sources that tell changes only.",
    )


class AlertRule(Section):
    """When somebody has to be told. A rule with the name of a shipped one changes only the options it gives."""

    name: Name = Field(description="Name of the rule; that of a shipped rule changes the shipped rule.")
    enabled: bool = Field(default=True, description="False switches the rule off, a shipped one, too.")
    metric: str | None = Field(
        default=None, pattern=r"^fedfab_[a-z0-9_]+$", description="A metric of docs/metrics.md; each of its series is watched."
    )  # fmt: skip
    labels: dict[str, str] = Field(default={}, description='Only series with these labels, e.g. { source = "press" }.')
    divided_by: str | None = Field(
        default=None, pattern=r"^fedfab_[a-z0-9_]+$", description="Watch the ratio to this metric of the same labels."
    )
    increase_over_s: float | None = Field(
        default=None, gt=0, description="For a counter: watch by how much it grew within so many seconds."
    )
    magnitude: bool = Field(default=False, description="Watch the value without its sign.")
    above: float | None = Field(default=None, description="Fires while the value is greater. Give above or below.")
    below: float | None = Field(default=None, description="Fires while the value is smaller.")
    clear: float | None = Field(
        default=None, description="Cleared only when the value is back at this one; default: the threshold itself."
    )
    for_s: float = Field(default=0.0, ge=0, description="Only after it was so for this long, seconds.")
    severity: Severity = Field(default="warning", description="How bad it is.")
    message: str = Field(
        default="", description="What a person reads; {value} and {label} are filled in. Default: rule and value."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_the_shipped(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        shipped = dict(DEFAULT_RULES.get(str(given.get("name")), {}))
        if "above" in given or "below" in given:
            for option in ("above", "below", "clear"):
                shipped.pop(option, None)
        return shipped | dict(given)

    @model_validator(mode="after")
    def _one_threshold(self) -> Self:
        if self.metric is None:
            raise ValueError("metric is required: which one is watched? Only a shipped rule has one already")
        if (self.above is None) == (self.below is None):
            raise ValueError("expected exactly one of above and below")
        if self.divided_by is not None and self.increase_over_s is not None:
            raise ValueError("expected at most one of divided_by and increase_over_s")
        if self.clear is not None and self.passed(self.clear):
            raise ValueError(f"clear = {self.clear:g} lies beyond the threshold {self.threshold:g}")
        try:
            self.told({}, 0.0)
        except (ValueError, AttributeError, IndexError) as error:
            raise ValueError(
                f'message: expected text with names in braces, such as {{value}}, got "{self.message}"'
            ) from error
        return self

    @property
    def threshold(self) -> float:
        """The value that must be passed."""
        return self.above if self.above is not None else self.below or 0.0

    def passed(self, value: float) -> bool:
        """Whether ``value`` lies beyond the threshold."""
        return value > self.threshold if self.above is not None else value < self.threshold

    def told(self, labels: Mapping[str, str], value: float | None) -> str:
        """The message, with labels and value filled in; a label that the series does not have is left out."""
        shown = "gone" if value is None else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        return (self.message or f"{self.name}: {{value}}").format_map(_Blanks({**labels, "value": shown}))

    def cleared(self, value: float) -> bool:
        """Whether ``value`` is back far enough for the alert to be over."""
        back = self.threshold if self.clear is None else self.clear
        return value <= back if self.above is not None else value >= back


class _Blanks(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return ""


class Sink(Section):
    """Someone who is told."""

    name: Name = Field(description="Name of the sink, in the log and in metrics.")
    least: Severity = Field(default="warning", description="The least severity it is told.")


def _encrypted(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("expected a URL such as https://hooks.example/fedfab")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError(f"expected https, because {parts.hostname} is not this machine")


class Webhook(Sink):
    """HTTPS POST of a JSON document for each alert."""

    url: Address | None = Field(default=None, description="Where to post; http for loopback only.")
    url_secret: Secret | None = Field(
        default=None, description="The whole URL as a secret, where the address itself gives the right to post."
    )
    ca: LocalFile | None = Field(default=None, description="PEM file of the CA to trust; default: those of the system.")
    authorization: Secret | None = Field(default=None, description="Value of the header Authorization.")
    hmac: Secret | None = Field(
        default=None, description="Key of X-Fedfab-Signature: sha256=HEX, HMAC-SHA-256 of time, a dot and the body."
    )

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if (self.url is None) == (self.url_secret is None):
            raise ValueError("expected exactly one of url and url_secret")
        if self.url is not None:
            _encrypted(self.url)
        return self

    def address(self) -> str:
        """Where to post. Raises SecretError, ValueError for a secret that is no such URL."""
        if self.url is not None:
            return self.url
        url = self.url_secret.read() if self.url_secret else ""
        _encrypted(url)
        return url


class Mqtt(Sink):
    """A message to an MQTT broker for each alert, quality of service 1."""

    host: str = Field(description="Name or address of the broker.")
    port: int = Field(default=8883, ge=1, le=65535, description="Its port.")
    tls: bool = Field(default=True, description="False for a broker on loopback only.")
    ca: LocalFile | None = Field(default=None, description="PEM file of the CA to trust; default: those of the system.")
    certificate: LocalFile | None = Field(default=None, description="PEM file of a client certificate, with key.")
    key: LocalFile | None = Field(default=None, description="PEM file of its private key, mode 0600.")
    user: str | None = Field(default=None, description="User at the broker.")
    password: Secret | None = Field(default=None, description="Its password.")
    topic: str = Field(
        default="fedfab/{gateway}/alert/{alert}",
        pattern=r"^[^#+]+$",
        description="Where to publish; {gateway} and {alert} are filled in.",
    )

    @model_validator(mode="after")
    def _encrypted_off_loopback(self) -> Self:
        if not self.tls and not is_loopback(self.host):
            raise ValueError(f"expected tls = true, because {self.host} is not this machine")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key come together: give both or neither")
        return self


class Email(Sink):
    """An e-mail for each alert."""

    host: str = Field(description="SMTP server.")
    port: int = Field(default=587, ge=1, le=65535, description="Its port: 587 with starttls, 465 with tls.")
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="How the connection is encrypted; none for a server on loopback only."
    )
    ca: LocalFile | None = Field(default=None, description="PEM file of the CA to trust; default: those of the system.")
    user: str | None = Field(default=None, description="User at the server.")
    password: Secret | None = Field(default=None, description="Its password.")
    sender: str = Field(pattern=r"^[^@\s]+@[^@\s]+$", description="Address it comes from.")
    to: tuple[Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")], ...] = Field(
        min_length=1, description="Addresses it goes to."
    )

    @model_validator(mode="after")
    def _encrypted_off_loopback(self) -> Self:
        if self.security == "none" and not is_loopback(self.host):
            raise ValueError(f'expected security = "starttls" or "tls", because {self.host} is not this machine')
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password come together: give both or neither")
        return self


class Alerts(Section):
    """Who is told, and how often. Every alert is in the log, too."""

    shipped: bool = Field(default=True, description="False leaves out the rules that are there without a word.")
    every_s: float = Field(default=10.0, ge=0.1, le=3600, description="How often the rules look at the metrics.")
    repeat_s: float = Field(
        default=4 * 3600.0, ge=0, description="An alert that stays is told again after so long; 0: never."
    )
    webhooks: tuple[Webhook, ...] = Field(default=(), alias="webhook", description="Told by HTTPS.")
    mqtt: tuple[Mqtt, ...] = Field(default=(), description="Told by MQTT.")
    emails: tuple[Email, ...] = Field(default=(), alias="email", description="Told by e-mail.")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [sink.name for sink in (*self.webhooks, *self.mqtt, *self.emails)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f'two sinks are called "{name}"; give each a name of its own')
        return self


def rules_in_force(alerts: Alerts, given: tuple[AlertRule, ...]) -> tuple[AlertRule, ...]:
    """The shipped rules, those of the file over them, without what is switched off."""
    shipped = [AlertRule(name=name) for name in DEFAULT_RULES] if alerts.shipped else []
    rules = {rule.name: rule for rule in (*shipped, *given)}
    return tuple(rule for rule in rules.values() if rule.enabled)
