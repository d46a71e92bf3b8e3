"""The rpcs of the dataset service: each opens a unit or a session, calls one command, and wraps the answer."""

from services.dataset.servicer.datasets import DatasetServicer
from services.dataset.servicer.uploads import UploadServicer
from services.dataset.servicer.versions import DatasetVersionServicer

__all__ = ["DatasetServicer", "DatasetVersionServicer", "UploadServicer"]
