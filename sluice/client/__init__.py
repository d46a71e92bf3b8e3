"""The Python client: AsyncClient over the generated stubs, and Client, the same without ``await``."""

from sluice.client.aio import AsyncClient
from sluice.client.sync import Client
from sluice.client.uploads import RowsRefused, UploadProgress

__all__ = ["AsyncClient", "Client", "RowsRefused", "UploadProgress"]
