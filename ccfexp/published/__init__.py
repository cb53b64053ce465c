"""The published face networks and checkpoint layouts of CCFExp (arXiv 2409.07271), built from facts about them.

Modules and parameters carry the published names, so that published state dicts load strictly.
"""
