"""What a job does when rows of its dataset version are forgotten while it reads them."""

import grpc
import pytest

from kit.rpc.errors import Invalid, StateConflict, to_status
from services.trainer.agent import staging
from services.trainer.folders import AttemptFolder
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.trainer import v1 as trainer

NAME = "projects/p/datasets/d/versions/1"


class Forgetting:
    """Two rows at first; of the second read one is left."""

    def __init__(self):
        self.digest, self.rows, self.asked = "sha256:" + "a" * 64, 2, []

    async def GetDatasetVersion(self, request, timeout):
        version = dataset.DatasetVersion(name=NAME, digest=self.digest, split_rows={"train": self.rows})
        return dataset.GetDatasetVersionResponse(dataset_version=version)

    async def ReadDatasetVersion(self, request):
        self.asked.append(request.digest)
        yield dataset.ReadDatasetVersionResponse(rows=b'{"row": 1}\n')
        if self.rows == 2:
            self.digest, self.rows = "sha256:" + "b" * 64, 1
            gone = StateConflict("forgotten while it was read", reason=errors.ERROR_REASON_ROWS_FORGOTTEN)
            details = grpc.aio.Metadata(("grpc-status-details-bin", to_status(gone).SerializeToString()))
            raise grpc.aio.AioRpcError(gone.code, grpc.aio.Metadata(), details, gone.message)


async def test_it_reads_what_is_left_and_nothing_of_the_rest_stays_in_its_folder(tmp_path):
    datasets, folder = Forgetting(), AttemptFolder(tmp_path / "jobs" / "1")
    folder.create()
    digest = await staging.patiently(lambda: staging._rows(datasets, NAME, folder))
    assert digest == "sha256:" + "b" * 64, "the model tells which rows it saw"
    assert datasets.asked == ["sha256:" + "a" * 64, "sha256:" + "b" * 64]
    assert (folder.path / "in" / "train.jsonl").read_bytes() == b'{"row": 1}\n'


def test_what_another_version_asked_for_fails_the_attempt_and_is_not_left_out():
    job = trainer.TrainingJob(name="projects/p/trainingJobs/1", spec=trainer.TrainingJobSpec(sft=trainer.SftRecipe()))
    assert staging.recipe_spec(job, 1)["recipe"] == "sft"
    with_rank = job.spec.SerializeToString() + bytes([8 << 3 | 2, 4, 2 << 3 | 2, 2, 8, 64])  # sft {lora {rank: 64}}
    job.spec.CopyFrom(trainer.TrainingJobSpec.FromString(with_rank))
    with pytest.raises(Invalid, match=r"spec\.sft has a field of another version of Sluice, number 2"):
        staging.recipe_spec(job, 1)
