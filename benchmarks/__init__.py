"""What is measured: `python -m benchmarks.speed`, with the nets of nets.py."""
