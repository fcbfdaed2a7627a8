"""A card for every known source: what its files hold, what becomes of them, and under which terms they are published.

The texts are `<source>.md`, read by `pipeline.cards`; TEMPLATE.md says what a card answers.
"""
