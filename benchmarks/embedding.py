"""`embed` against the bare network: what reading, resizing, normalising and writing leave of its speed.

    python benchmarks/embedding.py slide.svs [--model vit_small_patch16_224] [--weights w.safetensors] [--patches 256]

Rounds of a few seconds alternate, so that other work on the machine meets all of them alike; ratios are medians over
rounds. Rates are patches a second:

    bare        the encoder's own network, in its arithmetic, on random normalised tensors of the batch at hand
    encode      uint8 patches in memory through `Encoder.encode`: with resizing and normalising
    embed       the stage: slide read in its own process, encoded, kept, written
    in threads  the same with the patches read by threads of this process instead
    reading     the reading process with nobody computing
    read here   the patches read by threads of this process, with nobody computing

A second column has the processor milliseconds a patch of this process (of `embed` without its reading process, for
which `read here` stands). On a machine with other work it says more than the clock: what reading and preparing add to
`bare` is the part of the device's time that they take where they share its cores.

and, of two encoders, one pass over the pixels against two. Without --weights the network has random ones.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from wsi_pipeline.system.machine import prepare_process


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--second", default="deit_tiny_patch16_224", help="the other encoder of the common pass")
    parser.add_argument("--patches", type=int, default=256)
    parser.add_argument("--patch-px", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    prepare_process()
    # Processes that read import this file anew: what is heavy is imported here, as the command line does.
    import torch
    from embedding_ways import Bench, alternate, open_stage, show, tiled

    torch.set_num_threads(args.threads)
    with tiled(args.slide, args.patches, args.patch_px) as (run, record):
        stage = open_stage(run, args.model, args.weights, args.batch, args.device)
        bench = Bench(run, record, stage, args.readers, args.patches)
        print(f"{args.model}, {stage.encoder.describe(args.batch)}, {args.threads} threads, {args.readers} readers, "
              f"{bench.count} patches of {args.patch_px} px of {args.slide.name}; ratio to bare")  # fmt: skip
        ways = {
            name: getattr(bench, name) for name in ("bare", "encode", "embed", "in_threads", "reading", "read_here")
        }
        show(alternate(ways, args.rounds), "bare")
        if args.second:
            other = open_stage(run, args.second, None, args.batch, args.device)
            print(f"{args.model} and {args.second}: patches times encoders, ratio to two passes")
            passes = {
                "two passes": lambda: bench.stream([stage]) + bench.stream([other]),
                "one pass": lambda: bench.stream([stage, other]),
            }
            show(alternate(passes, args.rounds), "two passes")


if __name__ == "__main__":
    main()
