"""A page, served to this computer alone, on which a person corrects the 68 landmarks of a photograph."""
