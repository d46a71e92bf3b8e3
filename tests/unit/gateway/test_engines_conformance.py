"""What the Engine contract says of every engine; the verbs against a real vLLM are in tests/integration."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from kit.rpc.ports import free_port
from services.gateway.engines import ENGINES
from services.gateway.engines.engine_log import last_error, trim
from services.gateway.engines.errors import AdapterRejected, EngineError, NotReady, WrongKind
from services.gateway.engines.process import EngineProcess
from services.gateway.engines.protocol import Engine, Launch, Task
from services.suite.home import MARK
from services.suite.processes import end_marked
from tests.fakes.engine import FakeEngine, write_adapter, write_model

ALL: list[Engine] = [*ENGINES.values(), FakeEngine()]


def launch_in(tmp_path: Path, **fields: object) -> Launch:
    given = {
        "model": "base",
        "port": free_port(),
        "key": "a-secret",
        "cache_dir": tmp_path / "cache",
        **fields,
    }
    return Launch(model_dir=write_model(tmp_path / "model"), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ALL, ids=lambda engine: engine.name)
def test_the_key_is_never_in_argv_or_repr(engine: Engine, tmp_path: Path) -> None:
    launch = launch_in(tmp_path)
    command = engine.command(launch)
    assert "a-secret" not in " ".join(command.argv)
    assert "a-secret" in command.env.values()
    assert "a-secret" not in f"{launch!r} {command!r}"


def test_vllm_takes_dtype_and_context_from_the_config(tmp_path: Path) -> None:
    argv = ENGINES["vllm"].command(launch_in(tmp_path, lora=True, lora_rank=12)).argv
    flags = dict(pairwise(argv))
    assert (flags["--dtype"], flags["--max-model-len"], flags["--max-lora-rank"]) == ("float32", "1024", "16")
    assert flags["--host"] == "127.0.0.1"
    assert "--enable-lora" not in ENGINES["vllm"].command(launch_in(tmp_path)).argv


def test_vllm_trusts_neither_requests_nor_models(tmp_path: Path) -> None:
    """A request brings no chat template, a model no code, and one question does not occupy the engine for minutes."""
    command = ENGINES["vllm"].command(launch_in(tmp_path, lora=True))
    assert not [flag for flag in command.argv if flag.startswith(("--trust", "--enable-prompt-embeds"))]
    assert command.env["VLLM_MAX_N_SEQUENCES"] == "128" and command.env["VLLM_PLUGINS"] == ""


def test_vllm_serves_a_quantized_model_in_bfloat16(tmp_path: Path) -> None:
    launch = launch_in(tmp_path)
    (launch.model_dir / "config.json").write_text('{"dtype": "float32", "quantization_config": {}}')
    argv = ENGINES["vllm"].command(launch).argv
    assert dict(pairwise(argv))["--dtype"] == "bfloat16"


def test_vllm_takes_what_pooling_models_say_elsewhere(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2: 512 positions of which 256 are used, and float32 weights without a dtype in the config."""
    launch = launch_in(tmp_path, task="embed")
    (launch.model_dir / "config.json").write_text('{"max_position_embeddings": 512}')
    positions = {"dtype": "I64", "shape": [1, 1], "data_offsets": [0, 8]}
    tensors = {"a.position_ids": positions, "b": {"dtype": "F32", "shape": [1, 1], "data_offsets": [8, 12]}}
    header = json.dumps(tensors).encode()
    (launch.model_dir / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(12))
    for name, text in {
        "sentence_bert_config.json": '{"max_seq_length": 256, "do_lower_case": false}',
        "tokenizer_config.json": '{"model_max_length": 1000000000000000019884624838656}',
    }.items():
        (launch.model_dir / name).write_text(text)
    flags = dict(pairwise(ENGINES["vllm"].command(launch).argv))
    assert (flags["--runner"], flags["--max-model-len"], flags["--dtype"]) == ("pooling", "256", "float32")
    (launch.model_dir / "tokenizer_config.json").write_text('{"model_max_length": 100}')
    for task, longest in (("embed", "100"), ("generate", "256")):
        flags = dict(pairwise(ENGINES["vllm"].command(replace(launch, task=task)).argv))
        assert flags["--max-model-len"] == longest
    (launch.model_dir / "model.safetensors").unlink()
    assert dict(pairwise(ENGINES["vllm"].command(launch).argv))["--dtype"] == "auto"
    (launch.model_dir / "tokenizer_config.json").write_text("[]")
    with pytest.raises(EngineError, match=r"tokenizer_config\.json of model is no JSON object"):
        ENGINES["vllm"].command(launch)


def test_vllm_fetches_no_media_and_bounds_them(tmp_path: Path) -> None:
    launch = launch_in(tmp_path, lora=True)
    command = ENGINES["vllm"].command(launch)
    assert dict(pairwise(command.argv))["--allowed-media-domains"] == "none.invalid"
    assert command.env["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    assert "--limit-mm-per-prompt" not in command.argv and "--enable-tower-connector-lora" not in command.argv
    sees = {"vision_config": {}, "video_token_id": 7, "audio_config": {}}
    (launch.model_dir / "config.json").write_text(json.dumps(sees))
    argv = ENGINES["vllm"].command(launch).argv
    flags = dict(pairwise(argv))
    assert json.loads(flags["--limit-mm-per-prompt"]) == {"image": 16, "video": 1, "audio": 1}
    assert float(flags["--mm-processor-cache-gb"]) < 1
    assert "--enable-tower-connector-lora" not in argv, "an audio tower with it ends the engine"
    assert json.loads(flags["--media-io-kwargs"])["video"] == {"num_frames": 64}, "else it leaves out those after 32"
    (launch.model_dir / "config.json").write_text('{"vision_config": {}, "image_token_id": 7}')
    argv = ENGINES["vllm"].command(launch).argv
    flags = dict(pairwise(argv))
    assert "--enable-tower-connector-lora" in argv
    assert "--enable-tower-connector-lora" not in ENGINES["vllm"].command(replace(launch, lora=False)).argv
    assert json.loads(flags["--limit-mm-per-prompt"]) == {"image": 16}, "a video is its frames to this one"


def test_vllm_starts_without_adapters_what_it_serves_none_on(tmp_path: Path) -> None:
    launch = launch_in(tmp_path, lora=True)
    assert "--enable-lora" in ENGINES["vllm"].command(launch).argv
    hears = {"architectures": ["Qwen2AudioForConditionalGeneration"], "audio_config": {}}
    (launch.model_dir / "config.json").write_text(json.dumps(hears))
    argv = ENGINES["vllm"].command(launch).argv
    assert "--enable-lora" not in argv and "--enable-tower-connector-lora" not in argv


def test_vllm_refuses_a_folder_without_config(tmp_path: Path) -> None:
    launch = launch_in(tmp_path)
    (launch.model_dir / "config.json").unlink()
    with pytest.raises(EngineError, match=r"no config\.json"):
        ENGINES["vllm"].command(launch)


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[EngineProcess]:
    process = EngineProcess.spawn(tmp_path / "engine", FakeEngine(), launch_in(tmp_path, lora=True))
    await process.wait_ready(timeout_s=20)
    yield process
    await process.stop()


async def test_adapter_verbs_are_idempotent(process: EngineProcess, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    for _ in range(2):
        await process.engine.load_adapter(process.client, "mine", adapter)
    await process.engine.ready(process.client, "generate", "mine")
    for _ in range(2):
        await process.engine.unload_adapter(process.client, "mine")
    with pytest.raises(EngineError, match="404"):
        await process.engine.ready(process.client, "generate", "mine")
    with pytest.raises(AdapterRejected):
        await process.engine.load_adapter(process.client, "gone", tmp_path / "nowhere")


async def test_every_path_wants_the_key(process: EngineProcess) -> None:
    async with httpx.AsyncClient(base_url=process.launch.url, trust_env=False) as stranger:
        assert {(await stranger.get(path)).status_code for path in ("/v1/models", "/health")} == {401}


async def test_ready_tells_not_yet_from_wrong(process: EngineProcess) -> None:
    ready = process.engine.ready
    for status, error in ((503, NotReady), (500, EngineError)):
        await process.client.post("/_fake/faults", json={"status": status})
        with pytest.raises(error):
            await ready(process.client, "generate", "base")
    await process.client.post("/_fake/faults", json={"nan": True})
    with pytest.raises(EngineError):
        await ready(process.client, "generate", "base")
    await process.client.post("/_fake/faults", json={})
    await ready(process.client, "generate", "base")
    with pytest.raises(WrongKind, match="base is no model for naming spans of texts"):
        await ready(process.client, "tag", "base")
    with pytest.raises(WrongKind, match=r"base is no model for embeddings: the engine has no /v1/embeddings"):
        await ready(process.client, "embed", "base")


@pytest.mark.parametrize("task", ["embed", "classify", "score", "tag"])
async def test_every_task_is_proven_by_its_own_figures(tmp_path: Path, task: Task) -> None:
    process = EngineProcess.spawn(tmp_path / "engine", FakeEngine(), launch_in(tmp_path, task=task))
    try:
        await process.wait_ready(timeout_s=20)
        await process.client.post("/_fake/faults", json={"nan": True})
        with pytest.raises(EngineError):
            await process.engine.ready(process.client, task, "base")
    finally:
        await process.stop()


async def test_a_child_that_ends_early_says_why(tmp_path: Path) -> None:
    launch = launch_in(tmp_path)
    (launch.model_dir / "config.json").unlink()
    process = EngineProcess.spawn(tmp_path / "engine", FakeEngine(), launch)
    with pytest.raises(NotReady, match=r"ValueError: the model's folder holds no config\.json"):
        await process.wait_ready(timeout_s=20)
    assert not process.alive()
    assert not (tmp_path / "engine" / "engine.json").exists()


async def test_a_child_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    process = EngineProcess.spawn(tmp_path / "engine", FakeEngine(start_delay_s=60), launch_in(tmp_path))
    seen: list[float] = []
    with pytest.raises(NotReady, match=r"within 0\.3 s"):
        await process.wait_ready(timeout_s=0.3, progress=lambda waited_s, line: seen.append(waited_s))
    assert seen and not process.alive()


async def test_an_engine_is_adopted_and_a_recycled_pid_is_not(process: EngineProcess) -> None:
    state = process.folder / "engine.json"
    assert state.stat().st_mode & 0o777 == 0o600
    adopted = EngineProcess.adopt(process.folder, process.engine)
    assert adopted is not None and adopted.ready and adopted.pid == process.pid
    await adopted.probe(timeout_s=10)
    await adopted.aclose()
    state.write_text(state.read_text().replace(process.birth, "another-boot:1"))
    assert EngineProcess.adopt(process.folder, process.engine) is None


async def test_stop_ends_a_stopped_child(process: EngineProcess) -> None:
    import os
    import signal

    os.kill(process.pid, signal.SIGSTOP)
    await asyncio.wait_for(process.stop(), 10)
    assert not process.alive()


async def test_an_engine_without_a_host_ends_with_its_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, str(tmp_path))
    process = EngineProcess.spawn(tmp_path / "engine", FakeEngine(), launch_in(tmp_path))
    await process.wait_ready(timeout_s=20)
    await asyncio.to_thread(end_marked, MARK, f"{tmp_path}2")
    assert process.alive()
    await asyncio.to_thread(end_marked, MARK, str(tmp_path))
    assert not process.alive()
    await process.aclose()


def test_the_log_names_the_cause_and_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(
        "(EngineCore pid=1) ERROR 11-21 11:07:13 [core.py:1] ValueError: rank 64 is too large\n"
        "(APIServer pid=2) RuntimeError: Engine core initialization failed. See root cause above.\n"
    )
    assert last_error(log) == "ValueError: rank 64 is too large"
    log.write_bytes(b"x" * 1000)
    trim(log, 500)
    assert (log.stat().st_size, (tmp_path / "engine.log.1").stat().st_size) == (0, 250)
