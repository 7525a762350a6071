"""GateBench, as `swapgate gate bench`: same options."""

from harness.cli.evals.bench import bench_gate

if __name__ == "__main__":
    bench_gate()
