"""Past one machine: what batches cost as processes are added, and how far that goes."""
