import re
from pathlib import Path

import pytest

from voiceagent.config import Config, describe, load_config
from voiceagent.errors import ConfigError


def test_defaults_need_no_file() -> None:
    assert load_config(environ={}) == Config()


def test_file_then_environment_then_flags(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(
        'instructions = "Be brief."\n[server]\nport = 1\nhost = "::1"\n[turn]\nsilence_ms = 300\n'
    )
    config = load_config(
        file,
        environ={"VOICEAGENT_SERVER__PORT": "2", "VOICEAGENT_TURN__SILENCE_MS": "350"},
        overrides={"server.port": 3, "server.host": None},
    )
    assert (config.server.port, config.server.host, config.turn.silence_ms) == (3, "::1", 350)
    assert config.instructions == "Be brief."


def test_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[turn]\nsilense_ms = 300\n")
    with pytest.raises(ConfigError, match=re.escape("Did you mean 'turn.silence_ms'?")):
        load_config(file, environ={})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("server.port", "many"),
        ("server.port", 70000),
        ("server.port", 80.5),
        ("turn.threshold", 2),
        ("server.api_keys", 5),
        ("engine.dtype", "int4"),
        ("telemetry.metrics", "maybe"),
        ("telemetry.otlp", "127.0.0.1:4318"),
        ("engine.speech_dtype", "float8"),
        ("engine.kv_memory_mb", -1),
        ("engine.max_batch", 0),
        ("engine.reference_compatible", "maybe"),
        ("engine.speech_chunks", "12,many"),
        ("engine.speech_chunks", [12.5]),
        ("engine.speech_chunks", [12, 0]),
        ("engine.speech_chunks", ""),
        ("engine.speech_chunks", 25),
    ],
)
def test_bad_values_name_the_key(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=re.escape(name)):
        load_config(environ={}, overrides={name: value})


def test_flags_and_lists_of_numbers_come_from_anywhere(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[engine]\nreference_compatible = true\nspeech_chunks = [25]\n")
    assert load_config(file, environ={}).engine.speech_chunks == (25,)
    environ = {
        "VOICEAGENT_ENGINE__REFERENCE_COMPATIBLE": "no",
        "VOICEAGENT_ENGINE__SPEECH_CHUNKS": "5, 25",
    }
    engine = load_config(file, environ=environ).engine
    assert (engine.reference_compatible, engine.speech_chunks) == (False, (5, 25))


def test_unreadable_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load_config(tmp_path / "absent.toml", environ={})
    broken = tmp_path / "broken.toml"
    broken.write_text("[server\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(broken, environ={})


def test_description_is_toml_and_hides_keys(tmp_path: Path) -> None:
    config = load_config(environ={"VOICEAGENT_SERVER__API_KEYS": "secret1, secret2"})
    assert config.server.api_keys == ("secret1", "secret2")
    text = describe(config)
    assert "secret" not in text
    file = tmp_path / "again.toml"
    file.write_text(text.replace('["***", "***"]', '["secret1", "secret2"]'))
    assert load_config(file, environ={}) == config


def test_shipped_configurations_load() -> None:
    for file in sorted((Path(__file__).parent.parent / "configs").glob("*.toml")):
        load_config(file, environ={})
