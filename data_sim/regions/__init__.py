"""The regions of the phantom, each painted onto a canvas."""
