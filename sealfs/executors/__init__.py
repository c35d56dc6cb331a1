"""Where a workload runs: natively, or in an enclave of one kind or another."""
