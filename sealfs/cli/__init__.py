"""The command line: one thin file a verb. Parses, calls, prints; decides nothing."""
