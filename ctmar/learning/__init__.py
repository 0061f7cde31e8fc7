"""From a database to a trained network: which patients, which patches, the loop and what it writes."""
