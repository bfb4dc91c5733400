"""What `fedfab gateway status` draws: one status document, and the one before it for what changes with time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

Doc = Mapping[str, Any]

WIDE = 120
"""Columns from which on tables stand side by side."""
_DOTS = {"reading": "green", "starting": "yellow", "retrying": "red", "refused": "red", "stopped": "dim"}
_TASKS = {"running": "cyan", "finished": "green", "failed": "red", "cancelled": "dim"}
_SEVERITY = {"critical": "bold red", "warning": "yellow", "info": "cyan"}
_BARS = "▁▂▃▄▅▆▇█"


def screen(now: Doc, before: Doc | None, width: int) -> RenderableType:
    """The whole picture for a terminal of ``width`` columns. Rates need ``before``; without it they are left out."""
    parts: list[RenderableType] = [_head(now), _box(now, before), *_troubles(now)]
    left = [_sources(now, before), _predictions(now, before), _tasks(now)]
    right = [_ends(now), _buffers(now), _processes(now, before)]
    if width >= WIDE:
        columns = Table.grid(padding=(0, 2), expand=True)
        columns.add_column(ratio=3)
        columns.add_column(ratio=2)
        columns.add_row(Group(*filter(None, left)), Group(*filter(None, right)))
        return Group(*parts, columns)
    return Group(*parts, *(part for part in (left[0], right[0], left[2], left[1], right[1], right[2]) if part))


def print_once(console: Console, now: Doc) -> None:
    """The picture as plain output."""
    console.print(screen(now, None, console.width))


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """The last ``width`` values as bars from their least to their greatest."""
    shown = list(values)[-width:]
    if not shown:
        return ""
    low, span = min(shown), max(shown) - min(shown)
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1)) if span else 0] for value in shown)


def quantile(buckets: Sequence[tuple[str, float]], share: float) -> float | None:
    """Upper bound of the bucket in which the ``share`` lies, seconds; None where nothing was counted."""
    total = buckets[-1][1] if buckets else 0
    if not total:
        return None
    return next(float(bound) for bound, count in buckets if count >= share * total)


def _head(now: Doc) -> Text:
    text = Text.assemble(
        ("gateway ", "dim"), (str(now["gateway"]), "bold"), f"  {now['version']}",
        (f"  pid {now['pid']}  up {_span(now['now'] - now['started'])}", "dim"),
    )  # fmt: skip
    coordinator = now["coordinator"]
    if coordinator is None:
        text.append("  learns alone", "dim")
    else:
        text.append("  ● ", "green" if coordinator["connected"] else "red")
        text.append(f"coordinator {coordinator['url']}")
    return text


def _box(now: Doc, before: Doc | None) -> Text:
    here = now["box"]
    used = None
    if before is not None:
        total = here["cpu_seconds"] - before["box"]["cpu_seconds"]
        idle = here["cpu_idle_seconds"] - before["box"]["cpu_idle_seconds"]
        used = max(0.0, 1 - idle / total) if total > 0 else None
    text = Text()
    text.append(f"CPU {used:.0%} of {here['cpus']}" if used is not None else f"load {here['load']:.1f}")
    for name, share in (("memory", here["memory_used_ratio"]), ("disk", here["disk_used_ratio"])):
        text.append("  ")
        text.append(f"{name} {share:.0%}", "red" if share > 0.9 else "")
    rates = [_rate(now, before, lambda doc, key=key: doc["box"][key]) for key in _NETWORK]
    if None not in rates:
        text.append(f"  network ↓{_size(rates[0])}/s ↑{_size(rates[1])}/s")
    synchronised = now["clock"]["synchronised"]
    text.append("  clock " + ("right" if synchronised else "not synchronised"), "" if synchronised else "yellow")
    return text


_NETWORK = ("network_received_bytes", "network_sent_bytes")


def _troubles(now: Doc) -> Iterable[RenderableType]:
    """What a person should look at first."""
    configuration = now["configuration"]
    if configuration["refused"]:
        yield Text(f"▲ the changed configuration was not taken: {configuration['refused']}", "red")
    elif configuration["tried"]:
        yield Text(f"configuration of {_clock(configuration['loaded'])} in force", "dim")
    if now["last_hang"]:
        hang = now["last_hang"]
        yield Text(
            f"▲ an earlier process hung: {hang.get('part', '?')} while it had to {hang.get('doing', '?')}", "yellow"
        )
    if now.get("store_trouble"):
        yield Text(f"▲ nothing can be stored: {now['store_trouble']}", "bold red")
    for alert in now["alerts"]:
        since = _span(now["now"] - alert["since"])
        yield Text(
            f"▲ {alert['severity']}  {alert['message']}  ({alert['alert']}, for {since})", _SEVERITY[alert["severity"]]
        )


def _sources(now: Doc, before: Doc | None) -> Table:
    table = _table("source", "state", ">age", ">values/s", ">good tags", "worst", title="sources")
    earlier = {each["name"]: each for each in before["sources"]} if before else {}
    for each in now["sources"]:
        tags = each.get("tags", {})
        count = sum(tags.get(state, 0) for state in ("good", "bad", "old", "none"))
        rate = None
        if each["name"] in earlier and before is not None:
            rate = (each["readings"] - earlier[each["name"]]["readings"]) / max(1e-3, now["now"] - before["now"])
        good = Text(f"{tags.get('good', 0)}/{count}", "" if tags.get("good") == count else "yellow")
        worst = each["last_error"].splitlines()[0] if each["failures"] else ", ".join(tags.get("worst", ())[:3])
        table.add_row(
            escape(each["name"]),
            Text.assemble(("● ", _DOTS[each["state"]]), each["state"]),
            _age(now["now"], each["last_data"]),
            "–" if rate is None else f"{rate:,.0f}",
            good,
            escape(worst),
        )
    return table


def _ends(now: Doc) -> Table:
    table = _table("end", "cluster", ">rows", ">age", title="ends")
    for each in now["ends"]:
        table.add_row(each["name"], each["cluster"], f"{each['rows']:,}", _age(now["now"], each["newest"]))
    return table


def _predictions(now: Doc, before: Doc | None) -> Table:
    table = _table("model", ">version", ">requests/s", ">p50 ms", ">p99 ms", "verdict", title="models")
    for each in now["models"]:
        name, in_use = each["name"], each["in_use"]
        counted = now["inference"].get(name, {"requests": 0, "within": []})
        within = counted["within"]
        rate = None
        if before is not None:
            earlier = before["inference"].get(name, {"requests": 0, "within": [(bound, 0) for bound, _ in within]})
            rate = (counted["requests"] - earlier["requests"]) / max(1e-3, now["now"] - before["now"])
            fresh = [(bound, count - old) for (bound, count), (_, old) in zip(within, earlier["within"], strict=True)]
            within = fresh if fresh and fresh[-1][1] else within
        table.add_row(
            escape(name),
            str(in_use["version"]) if in_use else "none",
            "–" if rate is None else f"{rate:,.0f}",
            _ms(quantile(within, 0.5)),
            _ms(quantile(within, 0.99)),
            escape(each["newest"]["verdict"]),
        )
    return table


def _tasks(now: Doc) -> Table | None:
    if not now["tasks"]:
        return None
    table = _table("task", "name", "state", "round", "train loss", title="tasks")
    for each in now["tasks"][:8]:
        groups = each["groups"] or {"": None}
        for i, (group, course) in enumerate(groups.items()):
            head = (
                (each["task"], escape(each["name"]), Text(each["state"], _TASKS[each["state"]]))
                if i == 0
                else ("", "", "")
            )
            if course is None:
                table.add_row(*head, "", escape(each["reason"].split("\n")[0]))
                continue
            losses = course["losses"]
            rise = "red" if len(losses) > 2 and all(a < b for a, b in pairwise(losses[-3:])) else "cyan"
            trend = Text.assemble((sparkline(losses), rise), f" {losses[-1]:.4g}" if losses else "")
            table.add_row(*head, f"{group} {course['round']}/{each['rounds']}", trend)
    return table


def _buffers(now: Doc) -> Table:
    table = _table("buffer", "full", ">waiting", ">dropped", title="buffers")
    for each in now["buffers"]:
        share = each["depth"] / each["limit"] if each["limit"] else 0.0
        filled = round(share * 10)
        bar = Text("█" * filled + "░" * (10 - filled), "red" if share > 0.8 else "green")
        dropped = Text(f"{each['dropped']:,}", "red" if each["dropped"] else "")
        table.add_row(each["name"], bar, f"{each['depth']:,}", dropped)
    return table


def _processes(now: Doc, before: Doc | None) -> Table:
    table = _table("process", ">CPU", ">memory", ">files", title="processes")
    earlier = {each["pid"]: each for each in before["processes"]} if before else {}
    for each in now["processes"]:
        used = "–"
        if each["pid"] in earlier and before is not None:
            seconds = each["cpu_seconds"] - earlier[each["pid"]]["cpu_seconds"]
            used = f"{seconds / max(1e-3, now['now'] - before['now']):.0%}"
        table.add_row(each["name"], used, _size(each["memory_bytes"]), str(each["open_files"]))
    return table


def _table(*columns: str, title: str) -> Table:
    """Columns whose name begins with ``>`` hold figures; a last one that does not takes the room that is left."""
    open_ended = not columns[-1].startswith(">")
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", expand=open_ended)
    for name in columns:
        table.add_column(
            name.removeprefix(">"),
            justify="right" if name.startswith(">") else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if open_ended and name == columns[-1] else None,
        )
    return table


def _rate(now: Doc, before: Doc | None, pick: Any) -> float | None:
    if before is None:
        return None
    return float(max(0.0, pick(now) - pick(before)) / max(1e-3, now["now"] - before["now"]))


def _age(now: float, at_ns: int | None) -> str:
    return "–" if at_ns is None else _span(max(0.0, now - at_ns / 1e9))


def _span(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _size(count: float | None) -> str:
    value = count or 0.0
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"≤{seconds * 1000:g}"


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
