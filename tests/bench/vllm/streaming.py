"""A server that streams tokens like vLLM's completions route, in a process of its own: `python streaming.py PORT`.

An adapter's name can say how often its tokens come: `every-0.5` makes one every half second; others make one in 10 ms.
"""

from __future__ import annotations

import asyncio
import json
import sys

from aiohttp import web

EVENT = b'data: {"choices":[{"index":0,"text":"","prompt_token_ids":null,"token_ids":[7]}]}\n\n'
PAGE = """# HELP vllm:num_requests_running running
vllm:num_requests_running{engine="0"} %d
vllm:num_requests_waiting{engine="0"} 0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:prompt_tokens_total{engine="0"} 10
vllm:generation_tokens_total{engine="0"} 20
vllm:num_preemptions_total{engine="0"} 0
vllm:iteration_tokens_total_count{engine="0"} 5
vllm:iteration_tokens_total_sum{engine="0"} 30
vllm:lora_requests_info{max_lora="4",running_lora_adapters="a,b,c",waiting_lora_adapters=""} 3.0
vllm:lora_requests_info{max_lora="4",running_lora_adapters="a",waiting_lora_adapters=""} 2.0
"""


class Streaming:
    """The routes, and how many answers are under way."""

    def __init__(self) -> None:
        self.open = 0

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """Stream the tokens that are asked for."""
        body = json.loads(await request.read())
        if body["model"] == "refused":
            return web.json_response({"error": "no such adapter"}, status=404)
        kind, _, value = body["model"].partition("-")
        every_s = float(value) if kind == "every" else 0.01
        response = web.StreamResponse()
        await response.prepare(request)
        self.open += 1
        try:
            for _ in range(body["max_tokens"]):
                await asyncio.sleep(every_s)
                await response.write(EVENT)
            await response.write(b"data: [DONE]\n\n")
        finally:
            self.open -= 1
        return response

    async def metrics(self, _: web.Request) -> web.Response:
        """Serve the metrics page."""
        return web.Response(text=PAGE % self.open)

    async def health(self, _: web.Request) -> web.Response:
        """Tell that the server is ready."""
        return web.Response()


def main(port: int) -> None:
    """Serve until killed."""
    routes = Streaming()
    app = web.Application()
    app.add_routes(
        [
            web.post("/v1/completions", routes.completions),
            web.get("/metrics", routes.metrics),
            web.get("/health", routes.health),
        ]
    )
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None, backlog=4096, shutdown_timeout=0.1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
