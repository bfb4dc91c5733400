"""Logging of the daemon as its configuration says, with the log of each task kept apart."""

from __future__ import annotations

from common.log import configure
from common.tasklog import Level, TaskLogs
from gateway.config import Config


def task_logs(config: Config) -> TaskLogs:
    """The logs of this gateway's tasks."""
    log = config.log
    return TaskLogs(
        config.gateway.data_dir / "logs", bytes_each=log.task_mb << 20, tasks=log.tasks, level=log.task_level
    )


def start(config: Config, level: Level | None = None) -> TaskLogs:
    """Set up logging for this process; standard error shows lines of at least ``level``, by default the configuration's."""
    logs = task_logs(config)
    configure(level or config.log.level, config.log.format, first=logs, first_level=config.log.task_level)
    return logs
