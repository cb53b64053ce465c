"""What an attacker who sees everything that is released can tell: a test of the claim, made by trying to refute it.

This package trains; the rest of ``ccfexp.privacy`` is below the training loop, and nothing imports this.
"""
