"""Evaluation of synthesised faces: clinical measures, paired metrics, intervals and the report.

Nothing here trains, and nothing here knows which network drew a picture: arrays of landmarks, images and
predictions go in, numbers with intervals and one HTML page come out.
"""
