"""Where photographs come from: a table, folders, DICOM, videos, and the layouts of public data sets."""
