"""What every rank of a DeepSpeed run imports before it trains; importing this module does it."""

from .compat import prepare

prepare()  # DeepSpeed is imported only after it

from .. import trainer  # noqa: E402
from . import engine  # noqa: E402

__all__ = ["engine", "trainer"]
