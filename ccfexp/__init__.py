"""CCFExp: a diffusion model that draws this person making that expression.

The model package. It knows torch, diffusers, peft and numpy; it knows nothing of federations,
configuration files, rounds or hospitals.
"""

__version__ = "0.1.0"
