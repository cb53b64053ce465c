"""A hospital's photographs become training data: ``python -m client.prepare --site A``."""
