"""Data of one site: the manifest, the images it names, and the phantoms that stand in for patients."""
