"""Differential privacy of a patient: what is sampled, clipped, noised and accounted for, and how it is audited."""
