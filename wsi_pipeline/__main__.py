"""Lets `python -m wsi_pipeline` behave as the `wsi-pipeline` command."""

from wsi_pipeline.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
