"""Everything that measures: the yardsticks, the legacy service, the load and the benchmarks."""
