"""The evidence: what the papers claim, measured on the toy world with honest controls; it writes docs/results.md."""
