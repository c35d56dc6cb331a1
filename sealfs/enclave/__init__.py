"""What runs in an enclave, or prepares one: results out, keys in, measuring."""
