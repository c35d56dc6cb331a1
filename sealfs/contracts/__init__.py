"""What parties agree on: contracts, who signed them, what became of them, and the provenance of results."""
