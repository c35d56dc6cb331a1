"""A contract carried out: what runs inside, and the operator's side of it."""
