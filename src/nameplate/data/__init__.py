"""Data sets: folders, tables and archives → a table of `Photo`s; copies; splits."""

from nameplate.data.archive import ArchiveLimits, Refused
from nameplate.data.dataset import Dataset, list_photos, read_dataset

__all__ = ["ArchiveLimits", "Dataset", "Refused", "list_photos", "read_dataset"]
