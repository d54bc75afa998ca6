"""What `python -m bench.plan` is made of: adapters read, a placement found, and what to do with it written."""
