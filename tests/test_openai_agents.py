"""An OpenAI agent's model reads pruned tool results, the same bytes at every later call; its session keeps all."""

import asyncio
import copy

import pytest
from fixtures_agents import ASKED, SHIPMENTS, counted_results, late

pytest.importorskip("agents", reason="needs the extra openai-agents")

from agents import Agent, RunConfig, Runner, SQLiteSession, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

from ctxprune.integrations.openai_agents import PruneToolResults, retrieve_tool


@function_tool
def ships(query: str) -> str:
    """All shipments."""
    return SHIPMENTS


def outputs(call):
    return [each["output"] for each in call.input if each.get("type") == "function_call_output"]


def without_outputs(items):
    return [{**each, "output": None} if each.get("type") == "function_call_output" else each for each in items]


def run(results, *steps, turns=(ASKED,), tools=(), session=None):
    """The calls of a model that answers with these steps, over one session."""
    model = ScriptedModel([[step] for step in steps])
    agent = Agent("clerk", instructions="Be brief.", model=model, tools=[ships, *tools])
    session = session or SQLiteSession("s")
    config = RunConfig(call_model_input_filter=results and PruneToolResults(results), tracing_disabled=True)

    async def go():
        for turn in turns:
            await Runner.run(agent, turn, session=session, run_config=config)
        return await session.get_items()

    items = asyncio.run(go())
    assert model.remaining_steps == 0
    return model.calls, items


STEPS = (
    function_call("ships", {"query": "late"}, call_id="c1"),
    assistant_message("521", item_id="m1"),
    assistant_message("Zadar", item_id="m2"),
)
TURNS = (ASKED, "And where is it?")


def test_the_model_reads_the_pruned_result_and_the_session_keeps_the_whole():
    results, asked = counted_results()
    calls, items = run(results, *STEPS, turns=TURNS)
    plain, plain_items = run(None, *STEPS, turns=TURNS)
    assert outputs(calls[0]) == [] and late(outputs(calls[1])[0]) == [521]
    assert outputs(calls[2]) == outputs(calls[1]), "a later turn asks something else, and reads the same bytes"
    assert asked == [f"{ASKED}\nlate"]
    assert items == plain_items and [each["output"] for each in items if each.get("output")] == [SHIPMENTS]
    for mine, theirs in zip(calls, plain, strict=True):
        assert without_outputs(mine.input) == without_outputs(theirs.input)
        assert mine.system_instructions == theirs.system_instructions == "Be brief."


def test_an_original_comes_back_whole_through_the_tool():
    results, _ = counted_results(originals=True)
    name = results.prune(SHIPMENTS, f"{ASKED}\nlate", tool="ships").report["hash"]
    steps = (STEPS[0], function_call("ctxprune_retrieve", {"hash": name}, call_id="c2"), assistant_message("521"))
    calls, _ = run(results, *steps, tools=[retrieve_tool(results)])
    pruned, original = outputs(calls[-1])
    assert f"hash={name}" in pruned and late(pruned) == [521] and original == SHIPMENTS
    assert [tool.name for tool in calls[0].tools] == ["ships", "ctxprune_retrieve"]


@pytest.mark.parametrize("arguments", ["{}", "no JSON", "[1]", '{"hash": 7}', '{"hash": "' + "0" * 24 + '"}'])
def test_a_made_up_hash_gives_an_answer_and_no_error(arguments):
    results, _ = counted_results(originals=True)
    steps = (function_call("ctxprune_retrieve", arguments, call_id="c2"), assistant_message("none"))
    calls, _ = run(results, *steps, tools=[retrieve_tool(results)])
    assert outputs(calls[-1])[0].startswith("no original under")


def test_streamed_runs_are_filtered_too():
    results, _ = counted_results()
    model = ScriptedModel([[step] for step in STEPS[:2]])
    config = RunConfig(call_model_input_filter=PruneToolResults(results), tracing_disabled=True)

    async def go():
        streamed = Runner.run_streamed(Agent("clerk", model=model, tools=[ships]), ASKED, run_config=config)
        async for _ in streamed.stream_events():
            pass

    asyncio.run(go())
    assert late(outputs(model.calls[1])[0]) == [521]


@pytest.mark.parametrize("question", [None, lambda data: data.context])
def test_where_the_server_keeps_the_conversation_the_question_comes_from_elsewhere(question):
    results, asked = counted_results()
    model = ScriptedModel([[step] for step in STEPS[:2]])
    config = RunConfig(call_model_input_filter=PruneToolResults(results, question=question), tracing_disabled=True)
    agent = Agent("clerk", model=model, tools=[ships])
    asyncio.run(Runner.run(agent, ASKED, run_config=config, conversation_id="conv_1", context="What froze?"))
    [result] = model.calls[1].input  # sent once, and alone
    assert (result["output"] == SHIPMENTS) if question is None else late(result["output"]) == [521]
    assert asked == ([] if question is None else ["What froze?"])


ITEMS = [
    {"role": "system", "content": SHIPMENTS},
    {"role": "user", "content": [{"type": "input_text", "text": ASKED}, {"type": "input_image", "image_url": "x"}]},
    {"type": "reasoning", "id": "r1", "summary": []},
    {"type": "function_call", "call_id": "c1", "name": "ships", "arguments": '{"query": "late"}'},
    {
        "type": "function_call_output",
        "call_id": "c1",
        "output": [{"type": "input_text", "text": SHIPMENTS}, {"type": "input_image", "image_url": "y"}],
    },
    {"type": "custom_tool_call", "call_id": "c2", "name": "ships", "input": "late"},
    {"type": "custom_tool_call_output", "call_id": "c2", "output": SHIPMENTS},
    {"type": "shell_call_output", "call_id": "c3", "output": [{"stdout": SHIPMENTS}]},
    {"type": "from_the_future", "output": SHIPMENTS},
]


def test_only_texts_of_results_change():
    results, _ = counted_results()
    before = copy.deepcopy(ITEMS)
    pruned = PruneToolResults(results).pruned(ITEMS)
    assert before == ITEMS
    assert [place for place, item in enumerate(pruned) if item is not ITEMS[place]] == [4, 6]
    assert late(pruned[4]["output"][0]["text"]) == late(pruned[6]["output"]) == [521]
    assert pruned[4]["output"][1] is ITEMS[4]["output"][1]
    never, _ = counted_results(never=["ships"])
    assert PruneToolResults(never).pruned(ITEMS) == ITEMS
    assert PruneToolResults(results).pruned([]) == []


def test_a_megabyte_of_log_and_a_failure_pass_through_the_agent():
    results, _ = counted_results()
    log = "".join(f"2026-03-01 10:00:{at % 60:02d} INFO request {at} was served in time\n" for at in range(22_000))
    log = log.replace("request 9999 was served", "request 9999 froze at Zadar, too late")
    items = [*ITEMS[1:4], {"type": "function_call_output", "call_id": "c1", "output": log}]
    left = PruneToolResults(results).pruned(items)[-1]["output"]
    assert len(log) > 1_000_000 and "froze at Zadar" in left and len(left) < 1000
    broken = [*ITEMS[1:4], {"type": "function_call_output", "call_id": "c1", "output": "boom\n" * 90}]
    assert PruneToolResults(results).pruned(broken) == broken
