"""How it runs: command line, coordinator, Ray processes, parameter store, counters, metrics."""
