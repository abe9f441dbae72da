"""Errors that nobody foresaw: each goes to the log under a number, and the person who met it is told the number."""

import secrets
from traceback import format_exception

import structlog

log = structlog.get_logger(__name__)


def record(error: BaseException, **where: object) -> str:
    """Write an error to the log, and return the number that it has there.

    Args:
        where: what was being done. Nothing that a person has sent belongs here.
    """
    incident = secrets.token_hex(4)
    # As plain text: structlog's own rendering shows every frame's variables, hundreds of lines with people's texts.
    log.error("unexpected error", incident=incident, **where, exception="".join(format_exception(error)))
    return incident
