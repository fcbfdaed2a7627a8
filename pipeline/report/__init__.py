"""A curated dataset as one self-contained HTML page: what was kept, what was left out, and the evidence for both."""
