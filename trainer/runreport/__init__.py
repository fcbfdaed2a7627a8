"""One HTML page about training runs: their curves, seconds, settings, and the answers of two of them side by side."""
