"""A face phantom: a synthetic test object of exactly known geometry, never evidence about patients.

``Phantom().render(...)`` draws a chosen person making a chosen movement under a chosen palsy and returns the image
together with its exact 68 landmarks and labels. ``python -m ccfexp.data.phantom`` writes data sets.
"""
