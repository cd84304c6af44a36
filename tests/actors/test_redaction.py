"""What is taken for a secret, and what is not."""

import pytest

from actors.config import ActorConfig, check_actor_config
from actors.redaction import names_a_secret, redact, refuse_secrets


@pytest.mark.parametrize(
    "name",
    [
        "TOKEN", "RAY_AUTH_TOKEN", "token", "apiToken", "API_KEY", "apikey", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD",
        "private-key", "client_secret", "passwd", "HF_TOKEN", "SERVICE_CREDENTIALS",
    ],
)  # fmt: skip
def test_names_of_secrets(name):
    assert names_a_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "tokens_per_row", "text_tokens", "tokenizer", "TOKENIZERS_PARALLELISM", "RAY_AUTH_TOKEN_PATH", "key",
        "keyboard", "secretary", "password_file", "full_action_space", "PATH", "TOKEN_URL",
    ],
)  # fmt: skip
def test_names_of_other_things(name):
    assert not names_a_secret(name)


def test_values_of_variables_and_forms_of_tokens_are_blotted_out(monkeypatch):
    monkeypatch.setenv("MY_SERVICE_TOKEN", "correct-horse-battery")
    monkeypatch.setenv("MY_PIN_SECRET", "1234")  # too short: it would be found everywhere
    monkeypatch.setenv("MY_WORDS", "not a secret")
    token = "ghp_" + "a1B2" * 9
    text = f"1234: GET https://me:pa55word@host/x?t=correct-horse-battery {token}, not a secret; hf_hub sk-8"
    assert redact(text) == "1234: GET https://<redacted>@host/x?t=<redacted> <redacted>, not a secret; hf_hub sk-8"


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"api_key": "abc"}, "actors.mine.arguments.api_key"),
        ({"server": {"password": "abc"}}, "actors.mine.arguments.server.password"),
        ({"servers": ["http://a/", "http://me:pa55word@host/"]}, "actors.mine.arguments.servers"),
        ({"header": "Bearer correct-horse-battery"}, "actors.mine.arguments.header"),
    ],
)
def test_secrets_in_arguments_are_refused(arguments, key, monkeypatch):
    monkeypatch.setenv("MY_SERVICE_TOKEN", "correct-horse-battery")
    with pytest.raises(ValueError, match=f"{key} looks like a secret.*environment variable") as caught:
        check_actor_config(ActorConfig(task="gymnasium/Mine", arguments=arguments), "mine")
    assert "abc" not in str(caught.value) and "correct" not in str(caught.value)


def test_numbers_and_empty_texts_are_no_secrets():
    refuse_secrets({"token": 3, "password": "", "secret": None, "api_key": False}, "actors.mine.arguments")
