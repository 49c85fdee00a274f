"""What `bench/distributed.py` measures with: a platform on this machine, processor time by process, the sides of its ratios."""
