"""What a certificate of a lower bound proves, checked with the twin alone: nothing of `solvers` is imported here."""
