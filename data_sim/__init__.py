"""The virtual CT scanner: from tissue and metal to a sinogram and an uncorrected image."""
