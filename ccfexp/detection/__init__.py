"""Finding a face in a photograph, and its 68 points, with weights that a hospital has placed by hand."""
