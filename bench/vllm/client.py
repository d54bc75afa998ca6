"""The load generator: one asyncio process that sends requests at their times and times every token.

Connections are pooled and reused: a connection for each request runs a client out of ports, as happened in the published
runs. The generator measures how late it is itself, so that a result says whether the client or the server was the limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import resource
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
import numpy as np
from numpy.typing import NDArray

from bench.vllm.failures import Kind, ServerError

#: Beyond this 99th percentile of its own delays, in ms, or above this share of a core, the client was the limit. By hand: a few
#: engine steps, and a core that has next to no time left.
CLIENT_LAG_MS = 50.0
CLIENT_BUSY_SHARE = 0.9
#: No token for so long while requests are open: the server hangs. By hand: far longer than any step.
STALL_S = 180.0
# Pause of the loop that measures the client's own delays. By hand: well below `CLIENT_LAG_MS`.
_TICK_S = 0.01
_TOKENS = b'"token_ids":['
_NO_TOKENS = b'"token_ids":null'
_CHOICE = b'"choices":[{'
_DONE = b"data: [DONE]"
# Ids below are special tokens in most vocabularies. Prompts are cut from a pool of tokens that are drawn once, by hand longer
# than any prompt.
_FIRST_TOKEN = 16
_POOL = 65536

Result = TypeVar("Result")


@dataclass(frozen=True)
class Call:
    """One request as it is sent: the adapter's name in the server, its lengths, and the tokens of it that are a shared prompt."""

    model: str
    prompt_tokens: int
    output_tokens: int
    shared_tokens: int = 0


@dataclass
class Response:
    """What became of a request; times in seconds since the window's start, NaN for what did not happen.

    Attributes
    ----------
    due_s, sent_s : float
        When it was to be sent, and when it was.
    first_token_s, finish_s : float
    tokens : int
        Output tokens that came.
    token_s : list of float
        When each came; those of one chunk came together.
    error : str
        Why it failed, or empty. A request that is open when the window ends has not failed.
    """

    due_s: float
    call: Call
    sent_s: float = float("nan")
    first_token_s: float = float("nan")
    finish_s: float = float("nan")
    tokens: int = 0
    token_s: list[float] = field(default_factory=list)
    error: str = ""


@dataclass(frozen=True)
class ClientLoad:
    """How much the load generator itself had to do.

    Attributes
    ----------
    loop_lag_p99_ms, loop_lag_max_ms : float
        How late its event loop woke up.
    send_lag_p99_ms : float
        How late requests were sent.
    cpu_share : float
        Share of one core that it used.
    connections : int
        Connections that it opened, for all requests together.
    most_open : int
        Most requests open at a time.
    """

    loop_lag_p99_ms: float
    loop_lag_max_ms: float
    send_lag_p99_ms: float
    cpu_share: float
    connections: int
    most_open: int

    @property
    def was_the_limit(self) -> bool:
        """Whether the client, not the server, may have been the limit."""
        late = max(self.loop_lag_p99_ms, self.send_lag_p99_ms)
        return late > CLIENT_LAG_MS or self.cpu_share > CLIENT_BUSY_SHARE

    def describe(self) -> str:
        """One line for people."""
        lag = f"p99 lag {max(self.loop_lag_p99_ms, self.send_lag_p99_ms):.1f} ms, {self.cpu_share:.0%} of a core"
        if self.was_the_limit:
            return f"the client was the limit, not the server ({lag}): its figures are not the server's"
        return f"client: {lag}, {self.connections} connections for at most {self.most_open} open requests"


@dataclass(frozen=True)
class Replay:
    """A finished window: its answers in the order of the requests, and the client's own load."""

    answers: tuple[Response, ...]
    client: ClientLoad
    duration_s: float


class LoadGenerator:
    """Sends completions to one server.

    Parameters
    ----------
    url : str
        Of the server.
    vocabulary : int
        Prompts are drawn from token ids below this.
    seed : int
        Of the prompts.
    """

    def __init__(self, url: str, vocabulary: int, seed: int = 0) -> None:
        self.url = f"{url}/v1/completions"
        draws = np.random.Generator(np.random.Philox(key=[seed, 1]))
        self._pool = [str(token) for token in draws.integers(_FIRST_TOKEN, vocabulary, _POOL)]
        self._at = 0
        self._start = 0.0
        self._open = 0
        self._most_open = 0
        self._connections = 0
        self._last_token = 0.0
        self._lags: list[float] = []

    async def open_loop(
        self, due_s: NDArray[np.float64], calls: Sequence[Call], duration_s: float, *, until_answered: bool = False
    ) -> Replay:
        """Send every request at its time, whatever the server does, and stop listening at the window's end.

        Parameters
        ----------
        due_s : array of shape (n_requests,)
        calls : sequence of Call
        duration_s : float
        until_answered : bool
            End the window as soon as all are answered.
        """
        answers = [Response(float(due), call) for due, call in zip(due_s, calls, strict=True)]

        async def dispatch(session: aiohttp.ClientSession, tasks: set[asyncio.Task[None]]) -> None:
            for answer in answers:
                if (wait := answer.due_s - self._now()) > 0:
                    await asyncio.sleep(wait)
                task = asyncio.create_task(self._send(session, answer))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            if (rest := duration_s - self._now()) > 0:
                if until_answered and tasks:
                    await asyncio.wait(tasks, timeout=rest)
                else:
                    await asyncio.sleep(rest)

        return await self._window(dispatch, answers, duration_s)

    async def closed_loop(self, concurrency: int, calls: Sequence[Call], duration_s: float) -> Replay:
        """Keep `concurrency` requests open: when one is answered the next is sent. The calls are taken in turn, again and again."""
        answers: list[Response] = []

        async def worker(session: aiohttp.ClientSession) -> None:
            while True:
                answer = Response(self._now(), calls[len(answers) % len(calls)])
                answers.append(answer)
                await self._send(session, answer)
                if answer.error:
                    # A server that refuses everything must not be asked as fast as it can refuse.
                    await asyncio.sleep(0.1)

        async def dispatch(session: aiohttp.ClientSession, tasks: set[asyncio.Task[None]]) -> None:
            tasks.update(asyncio.create_task(worker(session)) for _ in range(concurrency))
            await asyncio.sleep(duration_s)

        return await self._window(dispatch, answers, duration_s)

    async def _window(
        self, dispatch: Callable[..., Awaitable[None]], answers: list[Response], duration_s: float
    ) -> Replay:
        raise_open_files()
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(self._count_connection)
        # The server keeps idle connections for an hour; ours go first, so that none is closed while it is taken.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=600, force_close=False)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=60)
        tasks: set[asyncio.Task[None]] = set()
        # A full collection stops everything for longer than a token takes.
        gc.collect()
        gc.freeze()
        self._open = self._most_open = self._connections = 0
        self._lags = []
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, trace_configs=[trace]) as session:
            self._start = time.perf_counter()
            self._last_token = self._start
            cpu = time.process_time()
            try:
                await guarded(dispatch(session, tasks), self._tick())
            finally:
                cpu_share = (time.process_time() - cpu) / max(self._now(), 1e-9)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                gc.unfreeze()
        late = [answer.sent_s - answer.due_s for answer in answers if np.isfinite(answer.sent_s)]
        load = ClientLoad(
            loop_lag_p99_ms=_percentile_ms(self._lags, 99),
            loop_lag_max_ms=_percentile_ms(self._lags, 100),
            send_lag_p99_ms=_percentile_ms(late, 99),
            cpu_share=cpu_share,
            connections=self._connections,
            most_open=self._most_open,
        )
        return Replay(tuple(answers), load, duration_s)

    def _now(self) -> float:
        return time.perf_counter() - self._start

    async def _count_connection(self, *_: object) -> None:
        self._connections += 1

    async def _tick(self) -> None:
        """Measure how late the event loop wakes up, and notice a server that hangs."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(_TICK_S)
            now = time.perf_counter()
            self._lags.append(now - before - _TICK_S)
            if self._open and now - self._last_token > STALL_S:
                raise ServerError(
                    Kind.STALLED, f"the server made no token in {STALL_S:g} s with {self._open} requests open"
                )

    async def _send(self, session: aiohttp.ClientSession, answer: Response) -> None:
        body = self._body(answer.call)
        if not self._open:
            self._last_token = time.perf_counter()
        self._open += 1
        self._most_open = max(self._most_open, self._open)
        answer.sent_s = self._now()
        try:
            async with session.post(self.url, data=body, headers={"Content-Type": "application/json"}) as response:
                if response.status != 200:
                    text = await response.text()
                    answer.error = f"HTTP {response.status}: {' '.join(text.split())[:200]}"
                    return
                await self._listen(response, answer)
        except (aiohttp.ClientError, OSError) as error:
            answer.error = f"{type(error).__name__}: {error}"
        finally:
            self._open -= 1

    async def _listen(self, response: aiohttp.ClientResponse, answer: Response) -> None:
        rest = b""
        done = False
        times = answer.token_s
        async for chunk in response.content.iter_any():
            now = time.perf_counter()
            events = (rest + chunk).split(b"\n\n")
            rest = events.pop()
            came = 0
            for event in events:
                came += tokens_in(event)
                done = done or event.startswith(_DONE)
            if came:
                self._last_token = now
                at = now - self._start
                if not times:
                    answer.first_token_s = at
                times.extend([at] * came)
        answer.tokens = len(times)
        if not done:
            answer.error = "the answer broke off"
        elif answer.tokens != answer.call.output_tokens:
            answer.error = f"{answer.tokens} tokens came instead of {answer.call.output_tokens}"
        else:
            answer.finish_s = times[-1]

    def _body(self, call: Call) -> bytes:
        begin = self._at
        if begin + call.prompt_tokens > len(self._pool):
            begin = 0
            self._pool *= -(-call.prompt_tokens // len(self._pool))
        # Another beginning for each prompt, behind what it shares: two equal prompts would be found in the cache.
        self._at = begin + 1 + call.prompt_tokens // 2
        shared = self._pool[: call.shared_tokens]
        prompt = ",".join([*shared, *self._pool[begin : begin + call.prompt_tokens - call.shared_tokens]])
        options = {
            "model": call.model,
            "max_tokens": call.output_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "detokenize": False,
            "return_token_ids": True,
        }
        return f'{json.dumps(options)[:-1]}, "prompt": [{prompt}]}}'.encode()


async def guarded(work: Awaitable[Result], *guards: Coroutine[Any, Any, None]) -> Result:
    """Do the work while guards watch: the first guard that raises ends it with its exception."""
    main = asyncio.ensure_future(work)
    watchers = [asyncio.create_task(guard) for guard in guards]
    try:
        await asyncio.wait([main, *watchers], return_when=asyncio.FIRST_COMPLETED)
        for watcher in watchers:
            if watcher.done():
                watcher.result()
        return await main
    finally:
        for task in (main, *watchers):
            task.cancel()
        await asyncio.gather(main, *watchers, return_exceptions=True)


def tokens_in(event: bytes) -> int:
    """Output tokens in one event of a streamed completion; a server that does not tell them sends one at a time."""
    at = event.rfind(_TOKENS)
    if at < 0:
        return int(_CHOICE in event and _NO_TOKENS not in event)
    begin = at + len(_TOKENS)
    end = event.find(b"]", begin)
    return event.count(b",", begin, end) + 1 if end > begin else 0


def raise_open_files() -> None:
    """Let this process open as many files as it may: an open request is an open socket."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _percentile_ms(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent) * 1000) if len(values) else 0.0
