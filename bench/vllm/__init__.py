"""Real vLLM servers: started, driven with a trace of requests, measured, and stopped."""
