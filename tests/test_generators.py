"""Generators: a tiny random llama against one prompt at a time, and an endpoint that fails on a script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from fixtures_endpoint import Endpoint, echo
from fixtures_llama import WORDS, save_llama

from ctxprune.errors import CheckpointError, GeneratorError, InputError
from ctxprune.generators import Generator, LocalGenerator, OpenAIGenerator, load_generator

PROMPTS = ["the cat", "a river and a rock and the sea", "sun", "vote", "the cat sat on the mat and the moon", "sea sea"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def generator(llama: Path) -> LocalGenerator:
    return LocalGenerator(llama, device="cpu", batch_size=4)


def slow_greedy(folder: Path, prompt: str, max_new_tokens: int) -> str:
    """The whole forward pass again for each token, without cache, batch or padding."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = tokenizer(prompt)["input_ids"]
    length = len(ids)
    while len(ids) < length + max_new_tokens:
        with torch.inference_mode():
            best = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if best == 2:
            break
        ids.append(best)
    return " ".join(WORDS[place] for place in ids[length:] if place > 2)


def test_a_batch_answers_as_one_prompt_at_a_time_and_as_the_slow_loop(llama: Path, generator: LocalGenerator) -> None:
    together = generator.generate(PROMPTS, max_new_tokens=12)
    assert together == [generator.generate([prompt], max_new_tokens=12)[0] for prompt in PROMPTS]
    assert together == [slow_greedy(llama, prompt, 12) for prompt in PROMPTS]
    assert len(set(together)) > 2
    lengths = {len(answer.split()) for answer in together}
    assert max(lengths) <= 12


def test_a_row_ends_at_its_own_end_token(generator: LocalGenerator) -> None:
    free = generator.generate(PROMPTS, max_new_tokens=12)
    # make the second word of the longest answer an end token: only rows that write it stop there
    end = WORDS.index(max(free, key=len).split()[1])
    ended = LocalGenerator(generator.name, device="cpu", batch_size=4)
    ended._eos = frozenset({2, end})
    ended._model.generation_config.eos_token_id = [2, end]
    expected = []
    for answer in free:
        words = answer.split()
        expected.append(" ".join(words[: words.index(WORDS[end])] if WORDS[end] in words else words))
    assert [reply.text for reply in ended.replies(PROMPTS, max_new_tokens=12)] == expected
    assert expected != free


def test_prompts_in_order_and_generator_protocol(generator: LocalGenerator) -> None:
    assert isinstance(generator, Generator)
    backwards = generator.generate(PROMPTS[::-1], max_new_tokens=5)
    assert backwards[::-1] == generator.generate(PROMPTS, max_new_tokens=5)
    assert generator.generate([]) == []
    assert (generator.device, generator.dtype, generator.context_tokens) == ("cpu", "float32", 64)


def test_a_prompt_that_does_not_fit_is_named(generator: LocalGenerator) -> None:
    with pytest.raises(InputError, match=r"prompts\[1\] has 60 tokens and asks for 5 more, .* holds 64"):
        generator.generate(["cat", "cat " * 60], max_new_tokens=5)
    assert generator.generate(["cat " * 60], max_new_tokens=4)
    with pytest.raises(InputError, match=r"prompts\[0\] has no tokens"):
        generator.generate([" "])


def test_bad_calls(generator: LocalGenerator) -> None:
    with pytest.raises(InputError, match="got one string"):
        generator.generate("cat")
    with pytest.raises(InputError, match="max_new_tokens must be at least 1, got 0"):
        generator.generate(["cat"], max_new_tokens=0)


def test_a_chat_template_wraps_the_prompt(tmp_path: Path, generator: LocalGenerator) -> None:
    template = "{% for m in messages %}<s> {{ m['role'] }} {{ m['content'] }}{% endfor %} </s>"
    chat = LocalGenerator(save_llama(tmp_path, chat_template=template), device="cpu")
    assert chat.chat
    assert chat.replies(["the cat"], max_new_tokens=6) == generator.replies(["<s> user the cat </s>"], max_new_tokens=6)
    plain = LocalGenerator(tmp_path, device="cpu", chat=False)
    assert plain.replies(["the cat"], max_new_tokens=6) == generator.replies(["the cat"], max_new_tokens=6)


def test_loading_is_silent_off_a_terminal(llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    LocalGenerator(llama, device="cpu").generate(["the cat"], max_new_tokens=3)
    assert capfd.readouterr() == ("", "")


def test_loading_that_fails_says_why(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no chat template"):
        LocalGenerator(llama, device="cpu", chat=True)
    with pytest.raises(CheckpointError, match="cannot load a causal language model"):
        LocalGenerator(tmp_path)
    with pytest.raises(InputError, match="dtype must name a torch dtype"):
        LocalGenerator(llama, dtype="float33")
    with pytest.raises(InputError, match="batch_size must be at least 1"):
        LocalGenerator(llama, batch_size=0)


def client(endpoint: Endpoint, **options: Any) -> OpenAIGenerator:
    return OpenAIGenerator("tiny", base_url=endpoint.base_url, **{"backoff": 0.001, "timeout": 300.0, **options})


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been slept, in order."""
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


def test_the_request_is_a_chat_completion(serve: Callable[..., Endpoint]) -> None:
    endpoint = serve(lambda number, body: (200, {}, echo(body)))
    options = {"api_key": "sk-secret", "system": "Be brief.", "extra_body": {"seed": 7}}
    with client(endpoint, **options) as generator:
        assert isinstance(generator, Generator)
        assert generator.generate(["who? \ud800"], max_new_tokens=9) == ["WHO? \ufffd"]
        assert generator.generate([]) == []
    path, headers, body = endpoint.seen[0]
    assert (path, headers["authorization"]) == ("/v1/chat/completions", "Bearer sk-secret")
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "who? \ufffd"}]
    assert body == {"model": "tiny", "messages": turns, "max_tokens": 9, "temperature": 0.0, "seed": 7}


def test_fields_and_address_for_other_servers(serve: Callable[..., Endpoint]) -> None:
    endpoint = serve(lambda number, body: (200, {}, echo(body)))
    endpoint.base_url += "/?api-version=3"
    with client(endpoint, limit_field="max_completion_tokens", temperature=None) as generator:
        generator.generate(["a"], max_new_tokens=9)
    path, headers, body = endpoint.seen[0]
    assert path == "/v1/chat/completions?api-version=3"
    assert "authorization" not in headers
    assert body == {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_completion_tokens": 9}


def completed(text: str, reason: str = "stop") -> str:
    return json.dumps({"choices": [{"text": text, "finish_reason": reason}]})


def test_a_base_model_completes_the_prompt_as_it_is(serve: Callable[..., Endpoint]) -> None:
    endpoint = serve(lambda number, body: (200, {}, completed(" seven geese")))
    with client(endpoint, chat=False, stop=["\n", "Text:"]) as generator:
        assert generator.generate(["How many? \ud800\nAnswer:"], max_new_tokens=5) == ["seven geese"]
    path, _, body = endpoint.seen[0]
    asked = {"prompt": "How many? \ufffd\nAnswer:", "max_tokens": 5, "stop": ["\n", "Text:"]}
    assert path == "/v1/completions" and body == {"model": "tiny", "temperature": 0.0, **asked}


@pytest.mark.parametrize(("chat", "fault"), [(True, "cut off"), (False, "")])
def test_going_on_until_the_limit_is_a_fault_of_a_chat_alone(
    serve: Callable[..., Endpoint], chat: bool, fault: str
) -> None:
    message = {"text": "a goose is", "message": {"content": "a goose is"}, "finish_reason": "length"}
    endpoint = serve(lambda number, body: (200, {}, json.dumps({"choices": [message]})))
    with client(endpoint, chat=chat) as generator:
        (reply,) = generator.replies(["what is a goose?"], max_new_tokens=3)
    assert reply.text == "a goose is" and reply.cut and (fault in reply.fault if fault else not reply.fault)


def test_a_chat_may_have_stops_too(serve: Callable[..., Endpoint]) -> None:
    endpoint = serve(lambda number, body: (200, {}, echo(body)))
    with client(endpoint, stop=("END",), extra_body={"seed": 1}) as generator:
        generator.generate(["a"])
    assert endpoint.seen[0][2]["stop"] == ["END"] and endpoint.seen[0][2]["seed"] == 1


def test_many_requests_fly_at_once_and_answers_keep_their_order(serve: Callable[..., Endpoint]) -> None:
    three, last_came = threading.Barrier(3), threading.Event()

    def first_comes_last(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], str]:
        prompt = body["messages"][0]["content"]
        if number <= 3:
            three.wait(300)  # broken, and so no answer, unless all three are in flight
        if prompt == "a":
            assert last_came.wait(300)
        elif prompt == "h":
            last_came.set()
        return 200, {}, echo(body)

    endpoint = serve(first_comes_last)
    with client(endpoint, concurrency=3) as generator:
        assert generator.generate(list("abcdefgh")) == list("ABCDEFGH")
    assert endpoint.most_in_flight == 3


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_failure_that_passes_is_tried_again(serve: Callable[..., Endpoint], status: int) -> None:
    endpoint = serve(lambda number, body: (status, {}, "busy") if number < 3 else (200, {}, echo(body)))
    with client(endpoint, retries=2) as generator:
        assert generator.generate(["hi"]) == ["HI"]
    assert len(endpoint.seen) == 3


def test_a_failure_that_stays_is_told_without_the_key(serve: Callable[..., Endpoint]) -> None:
    endpoint = serve(lambda number, body: (500, {}, "no luck for sk-secret"))
    with client(endpoint, retries=2, api_key="sk-secret") as generator:
        with pytest.raises(
            GeneratorError, match=r"tiny at http://.*failed after 3 tries: HTTP 500: no luck for \*\*\*"
        ):
            generator.generate(["hi"])
        assert "sk-secret" not in repr(generator)
    assert len(endpoint.seen) == 3


def test_a_bad_request_is_not_repeated_and_stops_the_rest(serve: Callable[..., Endpoint]) -> None:
    endpoint = serve(lambda number, body: (400, {}, "bad model"))
    with (
        client(endpoint, concurrency=1) as generator,
        pytest.raises(GeneratorError, match="after 1 try: HTTP 400: bad"),
    ):
        generator.generate(["hi"] * 50)
    assert len(endpoint.seen) < 10


IN_AN_HOUR = format_datetime(datetime.now(UTC) + timedelta(hours=1))


@pytest.mark.parametrize(("when", "max_wait", "nap"), [("7", 9, 7), ("3600", 9, 9), (IN_AN_HOUR, 9, 9)])
def test_retry_after_is_honoured_up_to_the_longest_wait(
    serve: Callable[..., Endpoint], naps: list[float], when: str, max_wait: float, nap: float
) -> None:
    endpoint = serve(lambda number, body: (429, {"retry-after": when}, "") if number == 1 else (200, {}, echo(body)))
    with client(endpoint, max_wait=max_wait) as generator:
        assert generator.generate(["hi"]) == ["HI"]
    assert naps == [nap]


@pytest.mark.parametrize("value", ["soon", "nan", "-1"])
def test_an_unreadable_retry_after_means_the_usual_wait(
    serve: Callable[..., Endpoint], naps: list[float], value: str
) -> None:
    endpoint = serve(lambda number, body: (429, {"retry-after": value}, "") if number == 1 else (200, {}, echo(body)))
    with client(endpoint, backoff=2.0) as generator:
        assert generator.generate(["hi"]) == ["HI"]
    [nap] = naps
    assert 1.0 <= nap <= 2.0


def test_a_timeout_is_tried_again_and_then_told(serve: Callable[..., Endpoint]) -> None:
    free = threading.Event()

    def hang(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], str]:
        assert free.wait(300)
        return 200, {}, echo(body)

    endpoint = serve(hang)
    with (
        client(endpoint, timeout=0.1, retries=1) as generator,
        pytest.raises(GeneratorError, match=r"2 tries: no answer within 0\.1 seconds"),
    ):
        generator.generate(["hi"])
    free.set()


def test_after_a_timeout_the_next_try_has_a_connection(serve: Callable[..., Endpoint]) -> None:
    free = threading.Event()

    def hang_once(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], str]:
        if number == 1:
            assert free.wait(300)
        return 200, {}, echo(body)

    # so many tries that one is in time on the busiest machine
    with client(serve(hang_once), timeout=0.2, retries=1000, max_wait=0.01) as generator:
        assert generator.generate(["hi"]) == ["HI"]
    free.set()


def test_a_server_that_is_not_there_is_told(serve: Callable[..., Endpoint]) -> None:
    with (
        OpenAIGenerator("tiny", base_url="http://user:sk-secret@127.0.0.1:1/v1", retries=0) as generator,
        pytest.raises(GeneratorError, match="check base_url=") as caught,
    ):
        generator.generate(["hi"])
    assert "sk-secret" not in str(caught.value) + repr(generator)


@pytest.mark.parametrize("text", ["not json", "[]", '{"choices": []}', '{"choices": [{"message": {"content": [1]}}]}'])
def test_an_answer_of_another_shape_is_told(serve: Callable[..., Endpoint], text: str) -> None:
    endpoint = serve(lambda number, body: (200, {}, text))
    with client(endpoint) as generator, pytest.raises(GeneratorError, match="sent no chat completion"):
        generator.generate(["hi"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "localhost:8000"}, "base_url"),
        ({"base_url": "http://host:port"}, "base_url"),
        ({"base_url": "http:///v1"}, "base_url"),
        ({"timeout": 0}, "timeout must be positive"),
        ({"retries": -1}, "retries at least 0"),
        ({"concurrency": 0}, "concurrency at least 1"),
        ({"api_key": "sk-secret\n"}, "api_key must be printable"),
        ({"chat": False, "system": "Be brief."}, "a completion has no system turn"),
        ({"stop": "\n"}, "stop must be a list of texts"),
        ({"stop": ["\n", ""]}, "stop must be a list of texts"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        OpenAIGenerator("tiny", **{"base_url": "http://localhost/v1", **options})
    assert "sk-secret" not in str(caught.value)


def test_one_door_to_models_on_disk_and_to_endpoints(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = load_generator(str(llama), device="cpu", batch_size=2)
    assert isinstance(local, LocalGenerator) and len(local.generate(["the cat"], max_new_tokens=1)) == 1
    monkeypatch.setenv("KEY_OF_OURS", "secret")
    with load_generator("m", base_url="http://x/v1", api_key_env="KEY_OF_OURS", concurrency=2) as remote:
        assert isinstance(remote, OpenAIGenerator) and remote.name == "m" and remote.chat
    with load_generator("m", base_url="http://x/v1", chat=False) as base:
        assert isinstance(base, OpenAIGenerator) and not base.chat
    assert load_generator(str(llama), device="cpu", chat=False).name == str(llama)
    with pytest.raises(InputError, match="stop is for endpoints"):
        load_generator(str(llama), stop=["cat"])


@pytest.mark.parametrize("value", [None, ""])
def test_a_key_that_is_not_there_is_named(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEY_OF_OURS", raising=False)
    if value is not None:
        monkeypatch.setenv("KEY_OF_OURS", value)
    with pytest.raises(InputError, match="variable KEY_OF_OURS is not set; set it to the key of m"):
        load_generator("m", base_url="http://x/v1", api_key_env="KEY_OF_OURS")
