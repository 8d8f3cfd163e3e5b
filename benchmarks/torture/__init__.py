"""What a cohort meets on real machines, on purpose and often: `python -m benchmarks.torture`, or `make torture`.

kills       every stage is killed at random instants and started again
together    several processes on one run folder, killed and restarted at random
damage      bytes of stores are flipped, files cut
disk        disks that are full after any number of bytes
long_run    many slides through all stages: memory, open files, time per slide

Each part is a command of its own, prints what it did and what came of it, and ends with 1 where something is wrong.
docs/reliability.md reports what was found.
"""
