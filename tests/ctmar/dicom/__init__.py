"""Finding, reading and writing DICOM series."""
