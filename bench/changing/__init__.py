"""A day of changing load: its requests, who serves them where under a controller, what that costs, and a bound."""
