"""All export formats. Import from here, so that the registry is filled; a new format is one file and one line here."""

from wsi_pipeline.exchange.writers import (
    anndata_files,
    clam_files,
    csv_tables,
    png_files,
    qupath_files,
    spatialdata_files,
    stamp_files,
    torchmil_files,
    trident_files,
)
from wsi_pipeline.exchange.writers.slide_content import EXPORT_FORMATS, CohortContent, ExportFormat, SlideContent

__all__ = [
    "EXPORT_FORMATS", "CohortContent", "ExportFormat", "SlideContent", "anndata_files", "clam_files", "csv_tables",
    "png_files", "qupath_files", "spatialdata_files", "stamp_files", "torchmil_files", "trident_files",
]  # fmt: skip
