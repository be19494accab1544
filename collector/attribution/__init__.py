"""Policies meet the store: snapshots of policies, verdicts on stored packets, and what the commands of policies ask.

`archive`, `attribute` and `snapshot` load DuckDB and the policy engine, so they are not imported here.
"""
