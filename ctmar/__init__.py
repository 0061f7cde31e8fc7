"""Metal artifact reduction in CT: corrections, network, DICOM, evaluation and command line."""

__version__ = "0.1.0"
