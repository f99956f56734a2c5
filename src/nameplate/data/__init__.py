"""Data sets: `read_dataset` reads folders, tables and archives into `Photo`s; other modules find copies and split."""

from nameplate.data.archive import ArchiveLimits, Refused
from nameplate.data.dataset import Dataset, list_photos, read_dataset

__all__ = ["ArchiveLimits", "Dataset", "Refused", "list_photos", "read_dataset"]
