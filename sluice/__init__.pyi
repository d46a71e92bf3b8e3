from sluice.client import AsyncClient as AsyncClient
from sluice.client import Client as Client
