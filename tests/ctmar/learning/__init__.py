"""From a database to a trained network."""
