"""The rpcs of the dataset service: each opens a unit or a session, calls one command, and wraps the answer."""

from services.dataset.servicer.assets import AssetServicer
from services.dataset.servicer.damaged_blobs import DamagedBlobServicer
from services.dataset.servicer.datasets import DatasetServicer
from services.dataset.servicer.erasures import ErasureServicer
from services.dataset.servicer.feeds import FeedServicer
from services.dataset.servicer.grants import GrantServicer
from services.dataset.servicer.profiles import DatasetProfileServicer
from services.dataset.servicer.records import AuditEntryServicer, ModelUseServicer
from services.dataset.servicer.uploads import UploadServicer
from services.dataset.servicer.versions import DatasetVersionServicer

__all__ = [
    "AssetServicer",
    "AuditEntryServicer",
    "DamagedBlobServicer",
    "DatasetProfileServicer",
    "DatasetServicer",
    "DatasetVersionServicer",
    "ErasureServicer",
    "FeedServicer",
    "GrantServicer",
    "ModelUseServicer",
    "UploadServicer",
]
