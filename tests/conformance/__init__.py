"""What other people's programs say of the files that ctmar writes."""
