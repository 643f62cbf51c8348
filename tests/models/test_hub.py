"""Models by name, from a stand-in hub on this machine: what is fetched, what is kept, and what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hub_server import HubServer, hub_server
from tiny_checkpoint import tiny_config, tiny_weights, write_config, write_shards
from tiny_token2wav import write_token2wav

from voiceagent.errors import CheckpointError
from voiceagent.models.folder import ASSETS, NEEDED, find_model, missing_files, recordings
from voiceagent.models.hub import SHORT_NAMES

REPOSITORY = "somebody/Step-Audio-2-tiny"
ROOT = Path(__file__).parent.parent.parent
FIND = """
import json, sys
from voiceagent.errors import VoiceAgentError
from voiceagent.models.folder import find_model
said = []
try:
    found = find_model(sys.argv[1], fetch=len(sys.argv) > 2, say=said.append)
    print(json.dumps({"name": found.name, "folder": str(found.folder), "said": said}))
except VoiceAgentError as error:
    print(json.dumps({"code": error.code, "message": str(error)}))
"""


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody with an empty cache, in a process of its own: the library reads its settings when it is imported."""

    home: Path
    url: str

    def find(self, name: str, *, fetch: bool = True, **environ: str) -> dict[str, str]:
        done = subprocess.run(
            [sys.executable, "-c", FIND, name, *(["fetch"] if fetch else [])],
            env=os.environ | self.environ() | environ,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, str] = json.loads(done.stdout)
        return answer

    def environ(self) -> dict[str, str]:
        return {
            "HF_HOME": str(self.home),
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": "",
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": str(ROOT),
        }


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the repository holds: a sharded checkpoint without recordings, and files that nobody needs."""
    folder = write_shards(tmp_path_factory.mktemp("repository"), tiny_weights())
    write_token2wav(folder, voices=())
    (folder / "README.md").write_text("about the model")
    (folder / "modeling_step_audio_2.py").write_text("raise SystemExit('code of strangers')")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    return folder


@pytest.fixture
def hub(source: Path) -> Iterator[HubServer]:
    with hub_server(source, REPOSITORY) as server:
        yield server


def test_a_model_is_fetched_once_and_only_what_is_needed(hub: HubServer, tmp_path: Path) -> None:
    client = Client(tmp_path, hub.url)
    assert client.find(REPOSITORY, fetch=False)["code"] == "not_downloaded"
    found = client.find(REPOSITORY)
    folder = Path(found["folder"])
    assert found["name"] == "Step-Audio-2-tiny"
    assert f"{REPOSITORY} is downloaded into {tmp_path}" in found["said"][0]
    assert not missing_files(folder)
    assert hub.sent().isdisjoint({"README.md", "modeling_step_audio_2.py", "pytorch_model.bin"})
    assert recordings(folder) == ASSETS / "pocket"  # it has no voices of its own
    # The second time, nobody is asked.
    hub.asked.clear()
    assert client.find(REPOSITORY)["folder"] == str(folder)
    assert client.find(str(folder))["name"] == "Step-Audio-2-tiny"
    assert hub.asked == []


def test_an_interrupted_download_goes_on(tmp_path: Path) -> None:
    """The library writes ten megabytes at a time: 21 of 24 arrive, 20 are kept."""
    source, megabyte = tmp_path / "source", 1 << 20
    (source / "token2wav").mkdir(parents=True)
    write_config(source, tiny_config())
    for name in NEEDED[2:]:
        (source / name).touch()
    (source / "model.safetensors").write_bytes(os.urandom(24 * megabyte))
    with hub_server(source, REPOSITORY) as server:
        client = Client(tmp_path / "home", server.url)
        server.cut = {"model.safetensors": 21 * megabyte}
        answer = client.find(REPOSITORY)
        if "code" in answer:  # newer versions of the library try again by themselves
            assert answer["code"] == "network"
            answer = client.find(REPOSITORY)
        whole = (source / "model.safetensors").read_bytes()
        assert (Path(answer["folder"]) / "model.safetensors").read_bytes() == whole
        assert [asked for _, _, asked in server.asked if asked] == [f"bytes={20 * megabyte}-"]


def test_a_hub_that_fails_is_the_networks_fault(hub: HubServer, tmp_path: Path) -> None:
    hub.failing = True
    answer = Client(tmp_path, hub.url).find(REPOSITORY)
    assert (answer["code"], "cannot be downloaded" in answer["message"]) == ("network", True)
    assert "\n" not in answer["message"]


def test_no_network(tmp_path: Path) -> None:
    client = Client(tmp_path, "http://127.0.0.1:9")
    for name in (REPOSITORY, "mini"):
        answer = client.find(name)
        assert answer["code"] == "network"
        assert "Check the connection" in answer["message"]
    assert client.find("mini-think", HF_HUB_OFFLINE="1")["code"] == "network"


@pytest.mark.parametrize("name", ["somebody/nothing", "somebody/--", "mini-base"])
def test_a_repository_that_is_not_there(hub: HubServer, tmp_path: Path, name: str) -> None:
    answer = Client(tmp_path, hub.url).find(name)
    assert answer["code"] == "model_not_found"
    assert SHORT_NAMES.get(name, name) in answer["message"]


def test_another_model_is_refused_before_its_weights_come(tmp_path: Path) -> None:
    whisper = tmp_path / "whisper"
    whisper.mkdir()
    (whisper / "config.json").write_text('{"model_type": "whisper", "d_model": 1280}')
    (whisper / "model.safetensors").write_bytes(bytes(1000))
    with hub_server(whisper, "openai/whisper-large-v3") as server:
        answer = Client(tmp_path / "home", server.url).find("openai/whisper-large-v3")
        assert answer["code"] == "wrong_model"
        assert "model_type is 'whisper'" in answer["message"]
        assert server.sent() == {"config.json"}


# --- names and folders, without a hub -----------------------------------------------------------------------------


def test_short_names() -> None:
    assert SHORT_NAMES == {
        "mini": "stepfun-ai/Step-Audio-2-mini",
        "mini-base": "stepfun-ai/Step-Audio-2-mini-Base",
        "mini-think": "stepfun-ai/Step-Audio-2-mini-Think",
    }


@pytest.mark.parametrize("name", ["pockets", "/nowhere/at/all", "a/b/c", "../up", "", "step audio"])
def test_a_name_that_means_nothing(name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        find_model(name if name else "nothing")
    assert caught.value.code == "model_not_found"


def test_folders_of_the_hubs_cache_have_the_repositorys_name(tmp_path: Path) -> None:
    folder = tmp_path / "models--stepfun-ai--Step-Audio-2-mini-Base" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    found = find_model(str(folder))
    assert (found.name, found.repository) == ("Step-Audio-2-mini-Base", "stepfun-ai/Step-Audio-2-mini-Base")
    assert found.variant == "base"
    assert (find_model(str(tmp_path)).name, find_model(str(tmp_path)).variant) == (tmp_path.name, "auto")
    assert find_model("pocket").folder == ASSETS / "pocket"


def test_missing_files_include_shards_that_the_index_names(source: Path, tmp_path: Path) -> None:
    assert missing_files(source) == []
    for file in source.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    (tmp_path / "config.json").unlink()
    assert missing_files(tmp_path) == ["config.json", "model-00002-of-00003.safetensors"]
    (tmp_path / "model.safetensors.index.json").unlink()
    assert missing_files(tmp_path)[-1] == "model.safetensors"
