"""Writes the dashboards beside it: ``python deploy/grafana/dashboards.py``. What they show is in the table at the end.

Plain JSON of Grafana's dashboard model, so that they can be imported by hand, provisioned, or changed in Grafana itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT = 24, 8


@dataclass(frozen=True)
class Panel:
    """One panel: queries in PromQL with their legends. ``$job`` and ``$instance`` are the variables of the dashboard."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 12
    warn: float | None = None
    """Above it, red."""


@dataclass(frozen=True)
class Dashboard:
    """One page."""

    name: str
    title: str
    panels: Sequence[Panel]

    def to_json(self) -> dict[str, Any]:
        """Grafana's model of it."""
        return {
            "uid": f"fedfab-{self.name}",
            "title": f"fedfab / {self.title}",
            "tags": ["fedfab"],
            "timezone": "browser",
            "editable": True,
            "refresh": "10s",
            "schemaVersion": 39,
            "time": {"from": "now-3h", "to": "now"},
            "annotations": {"list": []},
            "templating": {"list": [_data_source(), _variable("job"), _variable("instance", 'job=~"$job"')]},
            "panels": list(_placed(self.panels)),
        }


def _placed(panels: Sequence[Panel]) -> Iterator[dict[str, Any]]:
    """From left to right, and on with the next row where one is full."""
    x = y = 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > WIDTH:
            x, y = 0, y + HEIGHT
        yield _panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": HEIGHT})
        x += panel.width


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"value": None, "color": "green"}]
    if panel.warn is not None:
        steps.append({"value": panel.warn, "color": "red"})
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": place,
        "targets": [
            {"refId": chr(ord("A") + i), "expr": expression, "legendFormat": legend, "datasource": SOURCE}
            for i, (expression, legend) in enumerate(panel.queries)
        ],
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": {},
    }


def _data_source() -> dict[str, Any]:
    return {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus"}


def _variable(name: str, of: str = "") -> dict[str, Any]:
    query = f"label_values(fedfab_build_info{{{of}}}, {name})"
    return {
        "type": "query",
        "name": name,
        "datasource": SOURCE,
        "query": query,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
    }


_IDLE = 'mode=~"idle|iowait"'
AT = 'job=~"$job",instance=~"$instance"'


def _m(metric: str, labels: str = "") -> str:
    """A metric at the chosen gateways."""
    return f"{metric}{{{AT}{',' if labels else ''}{labels}}}"


def _rate(metric: str, labels: str = "") -> str:
    return f"rate({_m(metric, labels)}[$__rate_interval])"


def _quantile(share: float, metric: str, by: str) -> str:
    return f"histogram_quantile({share}, sum by (le, {by}) ({_rate(metric + '_bucket')}))"


DASHBOARDS = (
    Dashboard(
        "gateway",
        "Gateway",
        (
            Panel(
                "Alerts", [(f"{_m('fedfab_alert_active')} > 0", "{{instance}} {{alert}}")], kind="stat", width=6, warn=1
            ),
            Panel(
                "Sources reading",
                [(f"sum by (instance) ({_m('fedfab_source_up')})", "{{instance}}")],
                kind="stat",
                width=6,
            ),
            Panel("Coordinator", [(_m("fedfab_federation_link_up"), "{{instance}} {{peer}}")], kind="stat", width=6),
            Panel("Version", [(_m("fedfab_build_info"), "{{instance}} {{version}}")], kind="stat", width=6),
            Panel(
                "Age of the newest data",
                [(_m("fedfab_source_data_age_seconds"), "{{instance}} {{source}}")],
                "s",
                warn=120,
            ),
            Panel(
                "Buffers",
                [(f"{_m('fedfab_buffer_depth')} / {_m('fedfab_buffer_limit')}", "{{instance}} {{buffer}}")],
                "percentunit",
                warn=0.8,
            ),
            Panel(
                "Dropped",
                [(f"increase({_m('fedfab_buffer_dropped_total')}[$__rate_interval])", "{{instance}} {{buffer}}")],
            ),
            Panel(
                "Predictions",
                [(f"sum by (instance, model) ({_rate('fedfab_inference_requests_total')})", "{{instance}} {{model}}")],
                "reqps",
            ),
        ),
    ),
    Dashboard(
        "sources",
        "Plant sources",
        (
            Panel("State", [(_m("fedfab_source_up"), "{{source}}")], kind="stat", width=24),
            Panel("Values read", [(_rate("fedfab_source_readings_total"), "{{source}}")], "cps"),
            Panel("Values of bad quality", [(_rate("fedfab_source_bad_readings_total"), "{{source}}")], "cps"),
            Panel("Tags by state", [(f"sum by (source, state) ({_m('fedfab_source_tags')})", "{{source}} {{state}}")]),
            Panel(
                "Tags that are not good", [(_m("fedfab_source_bad_tags_ratio"), "{{source}}")], "percentunit", warn=0.2
            ),
            Panel("Age of the newest data", [(_m("fedfab_source_data_age_seconds"), "{{source}}")], "s", warn=120),
            Panel("Reconnects", [(f"increase({_m('fedfab_source_reconnects_total')}[1h])", "{{source}} in an hour")]),
            Panel("Rows of ends", [(_rate("fedfab_end_rows"), "{{end}}")], "cps"),
            Panel(
                "Rejected by cleaning",
                [(f"sum by (end, rule) ({_rate('fedfab_end_rejected_samples_total')})", "{{end}} {{rule}}")],
                "cps",
            ),
        ),
    ),
    Dashboard(
        "learning",
        "Learning",
        (
            Panel("Tasks", [(f"sum by (state) ({_m('fedfab_tasks')})", "{{state}}")], kind="stat", width=24),
            Panel("Training loss", [(_m("fedfab_task_train_loss"), "{{task}} {{group}}")]),
            Panel("Validation", [(_m("fedfab_task_validation"), "{{task}} {{group}} {{metric}}")]),
            Panel("Validation at each end", [(_m("fedfab_end_validation"), "{{task}} {{end}} {{metric}}")]),
            Panel(
                "Rounds",
                [(_m("fedfab_task_round"), "{{task}} {{group}}"), (_m("fedfab_task_max_rounds"), "{{task}} at most")],
            ),
            Panel("Duration of a round", [(_m("fedfab_task_round_duration_seconds"), "{{task}} {{group}}")], "s"),
            Panel("Missing members", [(_m("fedfab_task_missing_members"), "{{task}} {{group}}")], warn=1),
            Panel("Age of the models in use", [(_m("fedfab_model_age_seconds"), "{{model}}")], "s"),
            Panel(
                "Workers lost",
                [(f"increase({_m('fedfab_worker_deaths_total')}[1h])", "{{instance}} worker {{worker}} in an hour")],
            ),
        ),
    ),
    Dashboard(
        "inference",
        "Predictions",
        (
            Panel(
                "Requests",
                [(f"sum by (model, status) ({_rate('fedfab_inference_requests_total')})", "{{model}} {{status}}")],
                "reqps",
            ),
            Panel(
                "Latency",
                [
                    (_quantile(share, "fedfab_inference_seconds", "model"), f"{{{{model}}}} p{share * 100:g}")
                    for share in (0.5, 0.95, 0.99)
                ],
                "s",
            ),
            Panel(
                "Waiting for the model, p99",
                [(_quantile(0.99, "fedfab_inference_queue_seconds", "model"), "{{model}}")],
                "s",
            ),
            Panel("Computing, p99", [(_quantile(0.99, "fedfab_inference_compute_seconds", "model"), "{{model}}")], "s"),
            Panel(
                "Queue",
                [(_m("fedfab_inference_queue_depth"), "{{model}}"), (_m("fedfab_inference_queue_limit"), "limit")],
            ),
            Panel(
                "Under way",
                [(_m("fedfab_inference_in_flight"), "{{instance}}"), (_m("fedfab_inference_in_flight_limit"), "limit")],
            ),
            Panel("Flagged answers", [(_rate("fedfab_inference_flagged_total"), "{{model}} {{flag}}")], "cps"),
            Panel("Denied", [(_rate("fedfab_inference_denied_total"), "{{code}}")], "cps"),
            Panel(
                "Results kept and dropped",
                [(_rate("fedfab_results_written_total"), "kept"), (_rate("fedfab_results_dropped_total"), "dropped")],
                "cps",
            ),
            Panel(
                "Bytes",
                [
                    (_rate("fedfab_inference_received_bytes_total"), "in"),
                    (_rate("fedfab_inference_sent_bytes_total"), "out"),
                ],
                "Bps",
            ),
        ),
    ),
    Dashboard(
        "coordinator",
        "Coordinator",
        (
            Panel("Silence of members", [(_m("fedfab_coordinator_member_silent_seconds"), "{{peer}}")], "s", warn=600),
            Panel(
                "Certificates end in",
                [(f"{_m('fedfab_coordinator_member_certificate_expiry_seconds')} - time()", "{{peer}}")],
                "s",
            ),
            Panel("Messages waiting", [(_m("fedfab_coordinator_mailbox_messages"), "{{peer}}")]),
            Panel("Bytes in", [(_rate("fedfab_federation_received_bytes_total"), "{{peer}}")], "Bps"),
            Panel("Bytes out", [(_rate("fedfab_federation_sent_bytes_total"), "{{peer}}")], "Bps"),
            Panel(
                "Size of messages, p50 and p99",
                [
                    (
                        _quantile(share, "fedfab_federation_message_bytes", "direction"),
                        f"{{{{direction}}}} p{share * 100:g}",
                    )
                    for share in (0.5, 0.99)
                ],
                "bytes",
            ),
            Panel(
                "Calls",
                [(f"sum by (path, status) ({_rate('fedfab_coordinator_calls_total')})", "{{path}} {{status}}")],
                "reqps",
            ),
            Panel(
                "Latency of calls, p99", [(_quantile(0.99, "fedfab_coordinator_call_seconds", "path"), "{{path}}")], "s"
            ),
        ),
    ),
    Dashboard(
        "box",
        "Box",
        (
            Panel(
                "CPU",
                [
                    (
                        f"1 - sum by (instance) ({_rate('fedfab_box_cpu_seconds_total', _IDLE)})"
                        f" / sum by (instance) ({_m('fedfab_box_cpus')})",
                        "{{instance}}",
                    )
                ],
                "percentunit",
                warn=0.9,
            ),
            Panel("Load of each core", [(_m("fedfab_box_load_ratio"), "{{instance}}")], warn=2),
            Panel("Memory", [(_m("fedfab_box_memory_used_ratio"), "{{instance}}")], "percentunit", warn=0.95),
            Panel("Disk", [(_m("fedfab_box_disk_used_ratio"), "{{instance}} {{folder}}")], "percentunit", warn=0.9),
            Panel(
                "Disk traffic",
                [
                    (_rate("fedfab_box_disk_read_bytes_total"), "{{device}} read"),
                    (_rate("fedfab_box_disk_written_bytes_total"), "{{device}} written"),
                ],
                "Bps",
            ),
            Panel(
                "Network",
                [
                    (_rate("fedfab_box_network_received_bytes_total"), "{{device}} in"),
                    (_rate("fedfab_box_network_sent_bytes_total"), "{{device}} out"),
                ],
                "Bps",
            ),
            Panel("Memory of processes", [(_m("fedfab_process_memory_bytes"), "{{instance}} {{process}}")], "bytes"),
            Panel(
                "CPU of processes",
                [(_rate("fedfab_process_cpu_seconds_total"), "{{instance}} {{process}}")],
                "percentunit",
            ),
            Panel("Open files", [(_m("fedfab_process_open_files"), "{{instance}} {{process}}")]),
            Panel(
                "Clock",
                [
                    (_m("fedfab_box_clock_error_seconds"), "{{instance}} may be off by"),
                    (_m("fedfab_federation_clock_skew_seconds"), "{{instance}} ahead of the coordinator"),
                ],
                "s",
            ),
            Panel("Temperature", [(_m("fedfab_box_temperature_celsius"), "{{instance}} {{sensor}}")], "celsius"),
        ),
    ),
)


def main() -> None:
    """Write all of them."""
    for dashboard in DASHBOARDS:
        (HERE / f"{dashboard.name}.json").write_text(json.dumps(dashboard.to_json(), indent=1) + "\n")


if __name__ == "__main__":
    main()
