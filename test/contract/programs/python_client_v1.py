"""Runs one scenario with one generation of the official Python client that sends assistants=v1
(openai 1.3 to 1.20). How it is called, and what it prints, is as in python_client.py.

DIALECT=v2 puts the newer header in place of the one that these clients send, as people did who could
not upgrade: then only what both dialects share is done.
"""

import json
import os
import signal
import sys
import time
import traceback

import httpx
import openai
from openai import OpenAI

BASE_URL = os.environ.get("BASE_URL") or sys.exit("Set BASE_URL to the server's base URL (/v1).")
API_KEY = os.environ.get("API_KEY", "sk-contract")
MODEL = os.environ.get("MODEL", "gpt-4o")
IS_DEMO = os.environ.get("DEMO") == "1"
IN_V2 = os.environ.get("DIALECT") == "v2"
TIMEOUT_MS = int(os.environ.get("TIMEOUT_MS", "60000"))
OVERDUE = {"name": "TimeoutError", "message": f"not over after {TIMEOUT_MS} ms"}


def say_v2(request):
    if IN_V2 and "openai-beta" in request.headers:
        request.headers["openai-beta"] = "assistants=v2"


client = OpenAI(
    base_url=BASE_URL,
    api_key=API_KEY,
    timeout=30,
    http_client=httpx.Client(event_hooks={"request": [say_v2]}),
)
assistants = client.beta.assistants
threads = client.beta.threads
runs = threads.runs
messages = threads.messages

EQUATION = "I need to solve the equation `3x + 11 = 14`. Can you help me?"
TUTOR = {
    "name": "Math Tutor",
    "instructions": "You are a personal math tutor. Write and run code to answer math questions.",
    "tools": [{"type": "code_interpreter"}],
}
LOCATION = {"type": "object", "properties": {"location": {"type": "string"}}}
WEATHER = [
    {
        "type": "function",
        "function": {"name": name, "description": f"Knows: {name}", "parameters": LOCATION},
    }
    for name in ("get_current_temperature", "get_rain_probability")
]
ASK_WEATHER = (
    "Use get_current_temperature and get_rain_probability for San Francisco "
    "and tell me about today."
)


def create_poll():
    assistant = assistants.create(model=MODEL, **TUTOR)
    thread = threads.create()
    question = messages.create(thread.id, role="user", content=EQUATION)
    run = settled(
        runs.create(
            thread.id,
            assistant_id=assistant.id,
            instructions="Please address the user as Jane Doe.",
        )
    )
    check_completed(run)
    equal(run.instructions, "Please address the user as Jane Doe.")
    found = messages.list(thread.id).data
    equal(found[-1].id, question.id)
    equal((found[0].role, found[0].run_id), ("assistant", run.id))
    steps = runs.steps.list(run.id, thread_id=thread.id, order="asc").data
    types = [step.type for step in steps]
    equal(types[-1], "message_creation")
    equal(runs.steps.retrieve(steps[0].id, thread_id=thread.id, run_id=run.id).id, steps[0].id)
    if IS_DEMO:
        check("x = 1" in text_of(found[0]), text_of(found[0]))
        equal(types, ["tool_calls", "message_creation"])
    assistants.delete(assistant.id)
    return {"status": run.status, "text": text_of(found[0]), "steps": types}


def functions():
    assistant, thread = prepare({"tools": WEATHER}, ASK_WEATHER)
    waiting = settled(runs.create(thread.id, assistant_id=assistant.id))
    calls = check_requires_action(waiting)
    if IS_DEMO:
        wanted = [tool["function"]["name"] for tool in WEATHER]
        equal([call.function.name for call in calls], wanted)
    runs.submit_tool_outputs(waiting.id, thread_id=thread.id, tool_outputs=outputs_for(calls))
    run = settled(waiting)
    check_completed(run)
    steps = runs.steps.list(run.id, thread_id=thread.id, order="asc").data
    called = next(step for step in steps if step.type == "tool_calls")
    equal(
        [call.function.output for call in called.step_details.tool_calls],
        [f"output of {call.function.name}" for call in calls],
    )
    return {"status": run.status, "calls": len(calls)}


def lists():
    made = [assistants.create(model=MODEL, name=f"L{n}").id for n in range(3)]
    listed = [one.id for one in assistants.list(limit=2, order="asc")]
    equal([one for one in listed if one in made], made)
    contents = ["one", "two", "three", "four", "five"]
    thread = threads.create(messages=[user(content) for content in contents])
    found = [text_of(message) for message in messages.list(thread.id, limit=2, order="asc")]
    equal(found, contents)
    run = settled(runs.create(thread.id, assistant_id=made[0], tools=TUTOR["tools"]))
    check_completed(run)
    equal([one.id for one in runs.list(thread.id, limit=1)], [run.id])
    steps = [step.id for step in runs.steps.list(run.id, thread_id=thread.id, limit=1)]
    check(len(steps) > 0, "the run has steps")
    for one in made:
        assistants.delete(one)
    return {"messages": len(found), "steps": len(steps)}


def crud():
    wanted = {
        "model": MODEL,
        "name": "Clerk",
        "description": "Files things",
        "instructions": "File it.",
        "metadata": {"team": "a"},
    }
    assistant = assistants.create(**wanted, tools=[WEATHER[0], {"type": "code_interpreter"}])
    for key, value in wanted.items():
        equal(getattr(assistant, key), value)
    equal(assistant.tools[0].function.name, "get_current_temperature")
    equal(assistants.retrieve(assistant.id), assistant)
    renamed = assistants.update(assistant.id, name="Chief")
    equal((renamed.name, renamed.instructions), ("Chief", "File it."))

    thread = threads.create(messages=[user("First")], metadata={"topic": "x"})
    equal(threads.retrieve(thread.id).metadata, {"topic": "x"})
    equal(threads.update(thread.id, metadata={"topic": "y"}).metadata, {"topic": "y"})
    message = messages.create(thread.id, **user("Grüße 👋🏽"), metadata={"n": "1"})
    equal(text_of(message), "Grüße 👋🏽")
    equal(messages.retrieve(message.id, thread_id=thread.id), message)
    noted = messages.update(message.id, thread_id=thread.id, metadata={"n": "2"})
    equal(noted.metadata, {"n": "2"})
    raises(
        openai.BadRequestError,
        lambda: assistants.create(model=MODEL, extra_body={"nonsense": 1}),
    )
    equal(threads.delete(thread.id).object, "thread.deleted")
    raises(openai.NotFoundError, lambda: threads.retrieve(thread.id))
    equal(assistants.delete(assistant.id).object, "assistant.deleted")
    return {"thread": thread.id}


def cancel():
    assistant, thread = prepare({"tools": WEATHER}, ASK_WEATHER)
    begun = runs.create(thread.id, assistant_id=assistant.id)
    check_requires_action(settled(begun))
    noted = runs.update(begun.id, thread_id=thread.id, metadata={"n": "1"})
    equal(noted.metadata, {"n": "1"})
    check(runs.cancel(begun.id, thread_id=thread.id).status in ("cancelling", "cancelled"), "")
    equal(settled(begun).status, "cancelled")
    return {"status": "cancelled"}


def files():
    a, b, c = [upload(name) for name in "abc"]
    tools = [{"type": "retrieval"}, {"type": "code_interpreter"}]
    assistant = assistants.create(model=MODEL, tools=tools, file_ids=[a, b])
    equal([tool.type for tool in assistant.tools], ["retrieval", "code_interpreter"])
    equal(assistant.file_ids, [a, b])

    attached = assistants.files.create(assistant.id, file_id=c)
    equal((attached.object, attached.id), ("assistant.file", c))
    equal([one.id for one in assistants.files.list(assistant.id, limit=2)], [c, b, a])
    equal(assistants.files.retrieve(c, assistant_id=assistant.id), attached)
    detached = assistants.files.delete(c, assistant_id=assistant.id)
    equal((detached.object, detached.deleted), ("assistant.file.deleted", True))
    raises(
        openai.NotFoundError, lambda: assistants.files.retrieve(c, assistant_id=assistant.id)
    )
    equal(assistants.update(assistant.id, file_ids=[b]).file_ids, [b])
    client.files.delete(b)
    equal(assistants.retrieve(assistant.id).file_ids, [])

    thread = threads.create(messages=[{**user("Read it."), "file_ids": [a]}])
    message = messages.create(thread.id, **user("Both."), file_ids=[a, c])
    equal(message.file_ids, [a, c])
    listed = messages.files.list(message.id, thread_id=thread.id, order="asc")
    equal([one.id for one in listed], [a, c])
    file = messages.files.retrieve(c, thread_id=thread.id, message_id=message.id)
    equal((file.object, file.message_id), ("thread.message.file", message.id))

    equal(client.files.retrieve(a).purpose, "assistants")
    check(a in [one.id for one in client.files.list()], "the list of files")
    equal(client.files.content(a).read(), b"This is a.")
    name = client.models.list().data[0].id
    equal(client.models.retrieve(name).object, "model")
    return {"files": [a, b, c]}


def retrieval():
    body = {"tools": [{"type": "retrieval"}], "file_ids": [upload("notes")]}
    assistant, thread = prepare(body, "What do my notes say?")
    begun = runs.create(thread.id, assistant_id=assistant.id)
    equal(([tool.type for tool in begun.tools], begun.file_ids), (["retrieval"], body["file_ids"]))
    run = settled(begun)
    check_completed(run)
    steps = runs.steps.list(run.id, thread_id=thread.id, order="asc").data
    called = [step.step_details for step in steps if step.type == "tool_calls"]
    calls = [call for details in called for call in details.tool_calls]
    for call in calls:
        equal((call.type, call.retrieval), ("retrieval", {}))
    if IS_DEMO:
        equal(len(calls), 1)
    return {"calls": len(calls)}


def helpers():
    assistant, thread = prepare({"tools": WEATHER}, ASK_WEATHER)
    waiting = runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id)
    done = runs.submit_tool_outputs_and_poll(
        run_id=waiting.id,
        thread_id=thread.id,
        tool_outputs=outputs_for(check_requires_action(waiting)),
    )
    check_completed(done)
    body = {"assistant_id": assistant.id, "thread": {"messages": [user("Hello there.")]}}
    check_completed(threads.create_and_run_poll(**body))
    return {"status": done.status}


def stream():
    # The oldest clients have no streams to import this from.
    from openai import AssistantEventHandler

    class Recorder(AssistantEventHandler):
        text = code = ""

        def on_text_delta(self, delta, snapshot):
            self.text += delta.value or ""

        def on_tool_call_delta(self, delta, snapshot):
            if delta.type == "code_interpreter" and delta.code_interpreter:
                self.code += delta.code_interpreter.input or ""

    assistant, thread = prepare(TUTOR, EQUATION)
    seen = Recorder()
    with runs.stream(
        thread_id=thread.id, assistant_id=assistant.id, event_handler=seen
    ) as streaming:
        streaming.until_done()
    run = seen.current_run
    check_completed(run)
    stored = messages.list(thread.id, order="asc").data
    truth = [text_of(message) for message in stored if message.run_id == run.id]
    equal(seen.text, "".join(truth))
    equal([text_of(message) for message in seen.get_final_messages()], truth)
    if IS_DEMO:
        check("3x + 11 = 14" in seen.code, seen.code)

    weather, asked = prepare({"tools": WEATHER}, ASK_WEATHER)
    first = Recorder()
    with runs.stream(
        thread_id=asked.id, assistant_id=weather.id, event_handler=first
    ) as streaming:
        streaming.until_done()
    second = Recorder()
    with runs.submit_tool_outputs_stream(
        thread_id=asked.id,
        run_id=first.current_run.id,
        tool_outputs=outputs_for(check_requires_action(first.current_run)),
        event_handler=second,
    ) as streaming:
        streaming.until_done()
    check_completed(second.current_run)

    messages.create(thread.id, **user(EQUATION))
    raw = runs.create(thread.id, assistant_id=assistant.id, stream=True)
    events = [event.event for event in raw]
    equal(events[-1], "thread.run.completed")
    whole = threads.create_and_run(
        assistant_id=assistant.id, thread={"messages": [user(EQUATION)]}, stream=True
    )
    names = [event.event for event in whole]
    equal((names[0], names[-1]), ("thread.created", "thread.run.completed"))
    return {"text": seen.text, "events": len(events)}


def incomplete():
    """No status and no event of v1 says `incomplete`: its helpers would poll for ever."""
    from openai import AssistantEventHandler

    assistant, thread = prepare({}, "Please count to 100.")
    body = {
        "thread_id": thread.id,
        "assistant_id": assistant.id,
        "extra_body": {"max_completion_tokens": 16},
    }
    handler = AssistantEventHandler()
    polled = runs.create_and_poll(**body)
    with runs.stream(**body, event_handler=handler) as streaming:
        streaming.until_done()
    for run in (polled, handler.current_run):
        equal(run.status, "completed")
        equal(run.incomplete_details.reason, "max_completion_tokens")
    return {"status": polled.status}


def settled(run):
    """A helper of ours: the oldest clients have none."""
    while True:
        run = runs.retrieve(run.id, thread_id=run.thread_id)
        if run.status not in ("queued", "in_progress", "cancelling"):
            return run
        time.sleep(0.05)


def prepare(assistant_body, content):
    assistant = assistants.create(model=MODEL, **assistant_body)
    return assistant, threads.create(messages=[user(content)])


def upload(name):
    content = (f"{name}.txt", f"This is {name}.".encode())
    return client.files.create(file=content, purpose="assistants").id


def check_completed(run):
    check(run.status == "completed", f"the run is {run.status}: {run.last_error}")


def check_requires_action(run):
    check(run.status == "requires_action", f"the run is {run.status}: {run.last_error}")
    return run.required_action.submit_tool_outputs.tool_calls


def outputs_for(calls):
    return [
        {"tool_call_id": call.id, "output": f"output of {call.function.name}"} for call in calls
    ]


def user(content):
    return {"role": "user", "content": content}


def text_of(message):
    return "".join(part.text.value for part in message.content if part.type == "text")


def raises(kind, action):
    try:
        action()
    except kind as error:
        return error
    raise AssertionError(f"expected a {kind.__name__}")


def equal(actual, expected):
    check(actual == expected, f"expected {expected!r}, got {actual!r}")


def check(condition, message):
    """Not the statement: `python -O` would drop it."""
    if not condition:
        raise AssertionError(message)


HAS_HELPERS = hasattr(runs, "poll")
SCENARIOS = {
    "create-poll": create_poll,
    "functions": functions,
    "lists": lists,
    "crud": crud,
    "cancel": cancel,
    **({} if IN_V2 else {"files": files, "retrieval": retrieval}),
    **({"helpers": helpers, "stream": stream} if HAS_HELPERS else {}),
    **({"incomplete": incomplete} if HAS_HELPERS and not IN_V2 else {}),
}


def main():
    scenario = sys.argv[1] if len(sys.argv) > 1 else ""
    # A signal, whose handler ends the process: an exception could be taken for a lost connection
    # by the client, which would try again.
    signal.signal(signal.SIGALRM, lambda *_: finish(scenario, {"ok": False, "error": OVERDUE}))
    signal.setitimer(signal.ITIMER_REAL, TIMEOUT_MS / 1000)
    try:
        if scenario not in SCENARIOS:
            raise ValueError(f"Unknown scenario. There are: {', '.join(SCENARIOS)}")
        finish(scenario, {"ok": True, **SCENARIOS[scenario]()})
    except Exception as error:
        facts = {"name": type(error).__name__, "message": str(error)}
        finish(scenario, {"ok": False, "error": {**facts, "stack": traceback.format_exc()}})


def finish(scenario, result):
    head = {"client": "python", "version": openai.__version__, "scenario": scenario}
    print(json.dumps({**head, **result}, ensure_ascii=False), flush=True)
    # Not sys.exit: idle connections of the client have nothing left to say.
    os._exit(0 if result["ok"] else 1)


main()
