"""Times as they are kept: microseconds since 1970 UTC, read from and written as ISO 8601."""

import re
from datetime import UTC, datetime, timedelta

from ...config.errors import UserError

REMEDY = "give an ISO 8601 time such as 2026-11-24T12:00:00Z (without a zone it is taken as UTC)"
MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TOO_FINE = re.compile(r"[.,]\d{7,}")


def parse_time(text: str) -> int:
    """Microseconds since 1970 UTC. Raises ValueError, which says no more than that, for what is no time."""
    if _TOO_FINE.search(text):
        raise ValueError("finer than a microsecond")
    time = datetime.fromisoformat(text.strip())
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // MICROSECOND


def format_time(time_us: int) -> str:
    """Such as 2026-11-24T12:00:00Z; microseconds are shown where there are any."""
    return (_EPOCH + time_us * MICROSECOND).isoformat().replace("+00:00", "Z")


def time_option(option: str, text: str) -> int:
    """parse_time for a value of the command line. Raises UserError naming the option."""
    try:
        return parse_time(text)
    except (ValueError, OverflowError):
        raise UserError(option, f"{text!r} is no time", REMEDY) from None
