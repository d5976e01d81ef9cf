"""What every rank imports before it trains; importing this module does it, at 6 seconds of CPU time."""

from .. import compat

compat.prepare()  # megatron-core is imported only after it

from .. import trainer  # noqa: E402
from . import engine  # noqa: E402

__all__ = ["engine", "trainer"]
