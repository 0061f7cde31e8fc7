"""Find, decode and write DICOM series."""
