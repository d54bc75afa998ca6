"""Run asynchronous work so that Ctrl-C and SIGTERM stop its servers before the command ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_until_stopped(work: Coroutine[Any, Any, Result]) -> Result:
    """`asyncio.run` that a SIGTERM ends like Ctrl-C: the work is cancelled, and cleans up.

    Raises
    ------
    KeyboardInterrupt
        If a signal stopped it.
    """

    async def supervised() -> Result:
        task = asyncio.ensure_future(work)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    try:
        return asyncio.run(supervised())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
