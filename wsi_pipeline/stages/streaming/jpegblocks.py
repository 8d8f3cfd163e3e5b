"""Patches stored as JPEG in the patch store, decoded on the device: this process only reads bytes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

from wsi_pipeline.encoders.nvjpeg import decode_jpegs
from wsi_pipeline.stages.streaming.reader_process import SlideJob
from wsi_pipeline.store.files import open_store
from wsi_pipeline.store.schema import JPEG
from wsi_pipeline.system.prefetch import prefetch

if TYPE_CHECKING:
    import torch


def jpeg_blocks(job: SlideJob, rows: int, device: str) -> Iterator[tuple[int, torch.Tensor]]:
    """Iterate over (first row, uint8 (B, P, P, 3) on `device`) from `job.start` on, `rows` at a time.

    The bytes of the next block are read ahead. Raises StoreError for a damaged store, EncoderError for patches that
    the device cannot decode.
    """
    firsts = range(job.start, job.rows, rows)
    with closing(open_store(job.path)) as store, ThreadPoolExecutor(1, thread_name_prefix="jpegs") as pool:

        def read(first: int) -> list[bytes]:
            return store.read_bytes(JPEG, first, min(job.rows, first + rows))

        with closing(prefetch(pool, read, firsts, ahead=1)) as blocks:
            for first, jpegs in zip(firsts, blocks, strict=True):
                yield first, decode_jpegs(jpegs, device)
