"""Performance claims, one file each: ``python -m benchmarks.NAME [--check]``.

Each takes both sides of its ratio in one run on one machine, prints a short table and, as its last line, JSON with
name, ratio and bound.  ``--check`` exits 1 where the ratio is out of bounds.  They are no part of the test suite: a
loaded machine may fail a benchmark but must never fail a test.
"""
