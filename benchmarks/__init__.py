"""Speed and size of regstream, each figure beside a floor that was measured in the same run; see docs/benchmarks.md."""
