"""`python -m ctmar`."""

from ctmar.cli import main

main()
