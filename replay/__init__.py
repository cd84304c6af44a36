"""What it recalls: windows and their signature, tables, the server, the writer and the sampler."""
