"""Measures what somebody would compare who chooses between sealfs and its peers, all in one run.

The machine's speed changes from minute to minute, so nothing is compared across runs, and not even across minutes:
every measurement goes round the contenders in turn, several times, each round gives ratios, and the median of the
rounds counts. docs/performance.md explains the numbers. Start it with tools/bench.

"Cold" means: mounted anew, so neither the kernel nor the contender's process has read anything. What lies below
(ciphertext, plain files) is in the page cache in every case: software is measured, no disk.
"""
