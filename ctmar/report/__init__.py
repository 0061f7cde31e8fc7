"""HTML reports and preview pictures."""
