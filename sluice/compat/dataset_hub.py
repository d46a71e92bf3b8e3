"""``DatasetHub().upload(…)`` as the seed documents show it; it knows nothing that Client does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sluice.client import Client
from sluice.client.names import short


class DatasetHub:
    """Where datasets go; the arguments are those of ``sluice.Client``."""

    def __init__(self, address: str = "", api_key: str = "", project: str = "") -> None:
        self._arguments = (address, api_key, project)

    def upload(
        self,
        name: str,
        path: str | Path,
        task_type: str,
        modalities: Sequence[str] = (),
        description: str = "",
        tags: Mapping[str, str] | None = None,
        assets: str | Path | None = None,
    ) -> str:
        """Uploads a file and returns the id of its dataset, such as `medical-chest-xray-report`.

        ``assets`` is the folder in which the images lie that rows name.

        The id means the newest version wherever a dataset is asked for; `id@3` means the third. Raises
        RowsRefused with row, field and repair when the rows break the rules of the task type.
        """
        with Client(*self._arguments) as client:
            version = client.datasets.upload(
                name=name,
                path=path,
                task_type=task_type,
                modalities=modalities,
                description=description,
                tags=tags,
                assets=assets,
            )
        return short(version.name).partition("@")[0]
