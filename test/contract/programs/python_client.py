"""Runs one scenario with one generation of the official Python client against a server:

    PYTHONPATH=<pip install --target directory> BASE_URL=http://127.0.0.1:3000/v1 API_KEY=sk-any \
        python3 python_client.py stream-helper

Prints one line of JSON and exits with 0 (`"ok": true`) or 1. Environment: MODEL (default `gpt-4o`),
TIMEOUT_MS (default 60000, for all of it), DEMO=1 (the model behind the server is the demo model, so
its answers are known and checked as well).
"""

import asyncio
import hashlib
import json
import os
import pathlib
import signal
import sys
import tempfile
import traceback
import warnings

import openai
from openai import AssistantEventHandler, AsyncOpenAI, OpenAI

# The clients call the Assistants API deprecated at every call; that is known here.
warnings.simplefilter("ignore", DeprecationWarning)

BASE_URL = os.environ.get("BASE_URL") or sys.exit("Set BASE_URL to the server's base URL (/v1).")
API_KEY = os.environ.get("API_KEY", "sk-contract")
MODEL = os.environ.get("MODEL", "gpt-4o")
IS_DEMO = os.environ.get("DEMO") == "1"
TIMEOUT_MS = int(os.environ.get("TIMEOUT_MS", "60000"))
OVERDUE = {"name": "TimeoutError", "message": f"not over after {TIMEOUT_MS} ms"}

client = OpenAI(base_url=BASE_URL, api_key=API_KEY, timeout=30)
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
LOCATION = {"type": "string", "description": "The city and state, e.g., San Francisco, CA"}
UNIT = {"type": "string", "enum": ["Celsius", "Fahrenheit"]}
WEATHER = [
    {
        "type": "function",
        "function": {
            "name": "get_current_temperature",
            "description": "Get the current temperature for a specific location",
            "parameters": {
                "type": "object",
                "properties": {"location": LOCATION, "unit": UNIT},
                "required": ["location", "unit"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "get_rain_probability",
            "description": "Get the probability of rain for a specific location",
            "parameters": {
                "type": "object",
                "properties": {"location": LOCATION},
                "required": ["location"],
            },
        },
    },
]
INCLUDE = ["step_details.tool_calls[*].file_search.results[*].content"]
ASK_WEATHER = (
    "Use get_current_temperature and get_rain_probability for San Francisco "
    "and tell me about today."
)


class Recorder(AssistantEventHandler):
    """Writes down what the handlers are told, and lets the raw events pass the rules."""

    def __init__(self, continues=False):
        super().__init__()
        self.rules = StreamRules(continues)
        self.handlers = []
        self.texts = []
        self.done_texts = []
        self.code = ""
        self.done_code = {}
        self.arguments = ""

    def note(self, name):
        if not self.handlers or self.handlers[-1] != name:
            self.handlers.append(name)

    def on_event(self, event):
        self.rules.see(event.event, event.data.to_dict())

    def on_text_created(self, text):
        self.note("text_created")
        self.texts.append("")

    def on_text_delta(self, delta, snapshot):
        self.note("text_delta")
        self.texts[-1] += delta.value or ""
        check(snapshot.value == self.texts[-1], "the snapshot is the sum of its deltas")

    def on_text_done(self, text):
        self.note("text_done")
        self.done_texts.append(text.value)

    def on_message_done(self, message):
        self.note("message_done")

    def on_run_step_created(self, run_step):
        self.note("run_step_created")

    def on_run_step_done(self, run_step):
        self.note("run_step_done")
        check(run_step.status == "completed", f"the step is {run_step.status}")

    def on_tool_call_created(self, tool_call):
        self.note("tool_call_created")

    def on_tool_call_delta(self, delta, snapshot):
        self.note("tool_call_delta")
        if delta.type == "code_interpreter" and delta.code_interpreter:
            self.code += delta.code_interpreter.input or ""
        if delta.type == "function" and delta.function:
            self.arguments += delta.function.arguments or ""

    def on_tool_call_done(self, tool_call):
        self.note("tool_call_done")
        # The client repeats this for its last tool call whenever a later step is over.
        if tool_call.type == "code_interpreter":
            self.done_code[tool_call.id] = tool_call.code_interpreter.input

    def on_end(self):
        self.note("end")


def create_poll():
    assistant = assistants.create(model=MODEL, **TUTOR)
    thread = threads.create()
    question = messages.create(thread.id, role="user", content=EQUATION)
    run = runs.create_and_poll(
        thread_id=thread.id,
        assistant_id=assistant.id,
        instructions="Please address the user as Jane Doe.",
    )
    check_completed(run)
    equal(run.instructions, "Please address the user as Jane Doe.")
    found = messages.list(thread.id).data
    equal(found[-1].id, question.id)
    answer = found[0]
    equal((answer.role, answer.run_id, answer.assistant_id), ("assistant", run.id, assistant.id))
    text = text_of(answer)
    check(text != "", "the answer has no text")
    steps = runs.steps.list(run.id, thread_id=thread.id, order="asc").data
    types = [step.type for step in steps]
    equal(types[-1], "message_creation")
    equal(sum(step.usage.total_tokens for step in steps), run.usage.total_tokens)
    equal(runs.steps.retrieve(steps[0].id, thread_id=thread.id, run_id=run.id).id, steps[0].id)
    if IS_DEMO:
        check("x = 1" in text, text)
        equal(types, ["tool_calls", "message_creation"])
    assistants.delete(assistant.id)
    return {"status": run.status, "text": text, "steps": types}


def stream_helper():
    assistant, thread = prepare(TUTOR, EQUATION)
    handler = Recorder()
    with runs.stream(
        thread_id=thread.id, assistant_id=assistant.id, event_handler=handler
    ) as stream:
        stream.until_done()
    run = handler.get_final_run()
    check_completed(run)
    final = [text_of(message) for message in handler.get_final_messages()]
    equal(handler.texts, handler.done_texts)
    equal(handler.texts, final)
    equal(handler.code, "".join(handler.done_code.values()))
    stored = messages.list(thread.id, run_id=run.id, order="asc").data
    equal([text_of(message) for message in stored], final)
    equal(handler.get_final_run_steps()[-1].type, "message_creation")
    if IS_DEMO:
        check("x = 1" in final[-1], final[-1])
        check("3x + 11 = 14" in handler.code, handler.code)
    # The same without a handler of our own: the stream is an iterator of pieces of text.
    messages.create(thread.id, role="user", content=EQUATION)
    with runs.stream(thread_id=thread.id, assistant_id=assistant.id) as plain:
        pieces = "".join(plain.text_deltas)
        equal(pieces, "".join(text_of(message) for message in plain.get_final_messages()))
    asynchronous = asyncio.run(stream_async(assistant.id))
    facts = handler.rules.end()
    return {**facts, "texts": final, "handlers": handler.handlers, "async": asynchronous}


async def stream_async(assistant_id):
    async with AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY, timeout=30) as asynchronous:
        thread = await asynchronous.beta.threads.create(
            messages=[{"role": "user", "content": "Hello there."}]
        )
        async with asynchronous.beta.threads.runs.stream(
            thread_id=thread.id, assistant_id=assistant_id
        ) as stream:
            pieces = "".join([piece async for piece in stream.text_deltas])
            final = await stream.get_final_messages()
        equal(pieces, "".join(text_of(message) for message in final))
        return pieces


def stream_raw():
    assistant, thread = prepare(TUTOR, EQUATION)
    stream = runs.create(thread_id=thread.id, assistant_id=assistant.id, stream=True)
    facts = follow(stream)
    equal(facts["run_status"], "completed")
    if IS_DEMO:
        equal(facts["step_types"], ["tool_calls", "message_creation"])
    return facts


def create_and_run():
    assistant = assistants.create(model=MODEL)
    body = {
        "assistant_id": assistant.id,
        "thread": {"messages": [{"role": "user", "content": "Hello there."}]},
    }
    polled = threads.create_and_run_poll(**body)
    check_completed(polled)
    handler = Recorder()
    with threads.create_and_run_stream(**body, event_handler=handler) as stream:
        stream.until_done()
    check_completed(handler.get_final_run())
    facts = handler.rules.end()
    equal(facts["events"][0], "thread.created")
    raw = follow(threads.create_and_run(**body, stream=True))
    equal(raw["events"][0], "thread.created")
    return {"polled": polled.status, **facts}


def lists():
    made = [assistants.create(model=MODEL, name=f"L{n}").id for n in range(5)]
    for order, wanted in (("asc", made), ("desc", made[::-1])):
        listed = [one.id for one in assistants.list(limit=2, order=order)]
        equal([one for one in listed if one in made], wanted)

    contents = ["one", "two", "three", "four", "five", "six", "seven"]
    thread = threads.create(messages=[user(content) for content in contents[:5]])
    for content in contents[5:]:
        messages.create(thread.id, role="user", content=content)
    page = messages.list(thread.id, limit=3, order="asc")
    equal(len(page.data), 3)
    check(page.has_next_page(), "there is a next page")
    found = list(page)
    equal([text_of(message) for message in found], contents)
    ids = [message.id for message in found]
    equal([message.id for message in messages.list(thread.id, limit=3)], ids[::-1])
    before = messages.list(thread.id, before=ids[3], limit=2, order="asc")
    equal([message.id for message in before.data], ids[1:3])

    run_ids = []
    for extra in ({}, {}, {"tools": TUTOR["tools"], "additional_messages": [user(EQUATION)]}):
        run = runs.create_and_poll(thread_id=thread.id, assistant_id=made[0], **extra)
        check_completed(run)
        run_ids.append(run.id)
    equal([run.id for run in runs.list(thread.id, limit=2)], run_ids[::-1])
    steps = [step.id for step in runs.steps.list(run_ids[2], thread_id=thread.id, limit=1)]
    check(len(steps) > 0 and len(set(steps)) == len(steps), f"steps: {steps}")
    ascending = runs.steps.list(run_ids[2], thread_id=thread.id, limit=1, order="asc")
    equal([step.id for step in ascending], steps[::-1])
    equal(list(messages.list(threads.create().id)), [])
    for one in made:
        assistants.delete(one)
    return {"assistants": 5, "messages": len(ids), "runs": len(run_ids), "steps": len(steps)}


def crud():
    wanted = {
        "model": MODEL,
        "name": "Clerk",
        "description": "Files things",
        "instructions": "File it.",
        "metadata": {"team": "a"},
        "temperature": 0.5,
        "top_p": 0.9,
    }
    assistant = assistants.create(
        **wanted, tools=[WEATHER[0], {"type": "code_interpreter"}]
    )
    for key, value in wanted.items():
        equal(getattr(assistant, key), value)
    equal(assistant.tools[0].function.name, "get_current_temperature")
    equal(assistants.retrieve(assistant.id).to_dict(), assistant.to_dict())
    renamed = assistants.update(assistant.id, name="Chief", metadata={"rank": "1"})
    equal((renamed.name, renamed.instructions), ("Chief", "File it."))
    equal(renamed.metadata["rank"], "1")

    thread = threads.create(
        messages=[user("First"), {"role": "assistant", "content": "Second"}],
        metadata={"topic": "x"},
    )
    equal(threads.retrieve(thread.id).metadata["topic"], "x")
    equal(threads.update(thread.id, metadata={"topic": "y"}).metadata["topic"], "y")
    message = messages.create(
        thread.id,
        role="user",
        content=[
            {"type": "text", "text": "Grüße 👋🏽"},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        ],
        metadata={"n": "1"},
    )
    equal(message.content[0].text.value, "Grüße 👋🏽")
    equal(message.content[1].image_url.detail, "auto")
    stored = messages.retrieve(message.id, thread_id=thread.id)
    equal(stored.to_dict(), message.to_dict())
    noted = messages.update(message.id, thread_id=thread.id, metadata={"n": "2"})
    equal(noted.metadata["n"], "2")
    gone = messages.delete(message.id, thread_id=thread.id)
    equal((gone.deleted, gone.object), (True, "thread.message.deleted"))
    raises(openai.NotFoundError, lambda: messages.retrieve(message.id, thread_id=thread.id))
    raises(
        openai.BadRequestError,
        lambda: assistants.create(model=MODEL, extra_body={"nonsense": 1}),
    )
    equal(threads.delete(thread.id).object, "thread.deleted")
    raises(openai.NotFoundError, lambda: threads.retrieve(thread.id))
    equal(assistants.delete(assistant.id).object, "assistant.deleted")
    missing = raises(openai.NotFoundError, lambda: assistants.retrieve(assistant.id))
    return {"missing": str(missing)}


def functions():
    assistant, thread = prepare({"tools": WEATHER}, ASK_WEATHER)
    waiting = runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id)
    calls = check_requires_action(waiting)
    equal(waiting.usage, None)
    if IS_DEMO:
        equal(
            [call.function.name for call in calls], [tool["function"]["name"] for tool in WEATHER]
        )
    raises(
        openai.BadRequestError,
        lambda: runs.submit_tool_outputs(
            waiting.id,
            thread_id=thread.id,
            tool_outputs=[{"tool_call_id": "call_unknown", "output": ""}],
        ),
    )
    done = runs.submit_tool_outputs_and_poll(
        run_id=waiting.id, thread_id=thread.id, tool_outputs=outputs_for(calls)
    )
    check_completed(done)
    steps = runs.steps.list(done.id, thread_id=thread.id, order="asc").data
    called = next(step for step in steps if step.type == "tool_calls")
    equal(
        [call.function.output for call in called.step_details.tool_calls],
        [f"output of {call.function.name}" for call in calls],
    )

    messages.create(thread.id, role="user", content=ASK_WEATHER)
    first = Recorder()
    with runs.stream(
        thread_id=thread.id, assistant_id=assistant.id, event_handler=first
    ) as stream:
        stream.until_done()
    paused = first.current_run
    calls = check_requires_action(paused)
    equal(first.arguments, "".join(call.function.arguments for call in calls))
    second = Recorder(continues=True)
    with runs.submit_tool_outputs_stream(
        run_id=paused.id,
        thread_id=thread.id,
        tool_outputs=outputs_for(calls),
        event_handler=second,
    ) as stream:
        stream.until_done()
    check_completed(second.get_final_run())
    text = "".join(text_of(message) for message in second.get_final_messages())
    equal("".join(second.texts), text)
    if IS_DEMO:
        for call in calls:
            check(f"output of {call.function.name}" in text, text)
    return {
        "calls": [[call.function.name, call.function.arguments] for call in calls],
        "text": text,
        "first": first.rules.end()["events"],
        "second": second.rules.end()["events"],
    }


def one_run():
    """What no helper of the clients calls: each method of a run by itself."""
    assistant, thread = prepare({"tools": WEATHER}, ASK_WEATHER)
    created = runs.create(
        thread_id=thread.id, assistant_id=assistant.id, metadata={"n": "1"}, include=INCLUDE
    )
    equal(created.status, "queued")
    noted = runs.update(created.id, thread_id=thread.id, metadata={"n": "2"})
    equal(noted.metadata["n"], "2")
    waiting = runs.poll(created.id, thread_id=thread.id)
    calls = check_requires_action(waiting)
    equal(runs.retrieve(created.id, thread_id=thread.id).to_dict(), waiting.to_dict())
    step = runs.steps.list(created.id, thread_id=thread.id, include=INCLUDE).data[0]
    same = runs.steps.retrieve(
        step.id, thread_id=thread.id, run_id=created.id, include=INCLUDE
    )
    equal(same.to_dict(), step.to_dict())

    stream = runs.submit_tool_outputs(
        created.id, thread_id=thread.id, tool_outputs=outputs_for(calls), stream=True
    )
    facts = follow(stream, continues=True)
    equal(facts["run_status"], "completed")

    second = threads.create_and_run(
        assistant_id=assistant.id, thread={"messages": [user(ASK_WEATHER)]}
    )
    paused = runs.poll(second.id, thread_id=second.thread_id)
    outputs = outputs_for(check_requires_action(paused))
    resumed = runs.submit_tool_outputs(
        second.id, thread_id=second.thread_id, tool_outputs=outputs
    )
    equal(resumed.id, second.id)
    check_completed(runs.poll(second.id, thread_id=second.thread_id))

    equal(runs.list(thread.id, limit=1, order="asc").data[0].id, created.id)
    equal(runs.list(thread.id, after=created.id).data, [])
    return {"events": facts["events"]}


def cancel():
    assistant, thread = prepare({"tools": WEATHER}, ASK_WEATHER)
    waiting = runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id)
    check_requires_action(waiting)
    raises(
        openai.BadRequestError,
        lambda: messages.create(thread.id, role="user", content="Locked?"),
    )
    locked = raises(
        openai.BadRequestError,
        lambda: runs.create(thread_id=thread.id, assistant_id=assistant.id),
    )
    cancelling = runs.cancel(waiting.id, thread_id=thread.id)
    check(cancelling.status in ("cancelling", "cancelled"), cancelling.status)
    cancelled = runs.poll(waiting.id, thread_id=thread.id)
    equal(cancelled.status, "cancelled")
    check(isinstance(cancelled.cancelled_at, int), "cancelled_at is a time")
    again = raises(
        openai.BadRequestError, lambda: runs.cancel(waiting.id, thread_id=thread.id)
    )

    # While it writes: only a model that takes its time can be cancelled for sure.
    messages.create(thread.id, role="user", content="Please count to 900.")
    rules = StreamRules()
    last = None
    is_cancelled = False
    for event in runs.create(thread_id=thread.id, assistant_id=assistant.id, stream=True):
        rules.see(event.event, event.data.to_dict())
        if event.event == "thread.message.incomplete":
            last = event.data
        if event.event == "thread.message.delta" and not is_cancelled:
            is_cancelled = True
            newest = runs.list(thread.id, limit=1).data[0]
            runs.cancel(newest.id, thread_id=thread.id)
    facts = rules.end()
    if IS_DEMO:
        equal(facts["run_status"], "cancelled")
        equal(last.incomplete_details.reason, "run_cancelled")
    messages.create(thread.id, role="user", content="Free again?")
    return {"locked": str(locked), "again": str(again), **facts}


def models():
    listed = [model.id for model in client.models.list()]
    check(len(listed) > 0, "no models")
    equal(client.models.retrieve(listed[0]).id, listed[0])
    try:
        # A server that lets every name pass may know this one too.
        equal(client.models.retrieve("no-such-model").object, "model")
    except openai.NotFoundError:
        pass
    return {"models": listed}


def files():
    ids = []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / 'Größe "1".txt'
        path.write_bytes(b"from a disk")
        with path.open("rb") as opened:
            sources = [
                (opened, path.name, b"from a disk"),
                (path, path.name, b"from a disk"),
                (("日本語.json", b"{}", "application/json"), "日本語.json", b"{}"),
            ]
            for source, filename, content in sources:
                made = client.files.create(file=source, purpose="assistants")
                ids.append(made.id)
                equal(made.filename, filename)
                equal(made.bytes, len(content))
                equal(made.status, "processed")
                equal(client.files.retrieve(made.id), made)
                equal(client.files.wait_for_processing(made.id).id, made.id)
                equal(client.files.content(made.id).read(), content)

    batch = client.files.create(file=("batch.jsonl", b"{}"), purpose="batch")
    equal(batch.expires_at - batch.created_at, 2_592_000)
    listed = [file.id for file in client.files.list(purpose="assistants")]
    check(set(ids) <= set(listed), "a file is not in the list")
    check(batch.id not in listed, "the list holds files of another purpose")
    raises(openai.BadRequestError, lambda: client.files.create(file=b"x", purpose="notes"))
    for file_id in [*ids, batch.id]:
        check(client.files.delete(file_id).deleted, "not deleted")
    raises(openai.NotFoundError, lambda: client.files.retrieve(ids[0]))
    return {"ids": ids}


def uploads():
    content = b'{"n": 1}\n' * 1000
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "lines.jsonl"
        path.write_bytes(content)
        done = client.uploads.upload_file_chunked(
            file=path,
            mime_type="application/jsonl",
            purpose="fine-tune",
            part_size=4000,
            md5=hashlib.md5(content).hexdigest(),
        )
    equal(done.status, "completed")
    equal(done.file.filename, "lines.jsonl")
    equal(client.files.content(done.file.id).read(), content)
    client.files.delete(done.file.id)

    unwanted = client.uploads.create(
        filename="a.png", purpose="vision", bytes=1, mime_type="image/png"
    )
    equal(client.uploads.cancel(unwanted.id).status, "cancelled")
    return {"file": done.file.id}


SCENARIOS = {
    "create-poll": create_poll,
    "stream-helper": stream_helper,
    "stream-raw": stream_raw,
    "create-and-run": create_and_run,
    "lists": lists,
    "crud": crud,
    "functions": functions,
    "one-run": one_run,
    "cancel": cancel,
    "models": models,
    "files": files,
    "uploads": uploads,
}


class StreamRules:
    """The order that the accumulators of the clients rely on; the Node programs check more."""

    ENDS = {"completed", "incomplete", "failed", "cancelled", "expired", "requires_action"}

    def __init__(self, continues=False):
        self.continues = continues
        self.names = []
        self.messages = {}
        self.open_message = None
        self.steps = {}
        self.run_status = None

    def see(self, name, data):
        at = f"event {len(self.names)} ({name})"
        check(self.run_status not in self.ENDS, f"{at}: came after the end of the run")
        self.names.append(name)
        if name.startswith("thread.message."):
            self.see_message(name.removeprefix("thread.message."), data, at)
        elif name.startswith("thread.run.step."):
            self.see_step(name.removeprefix("thread.run.step."), data, at)
        elif name.startswith("thread.run."):
            self.run_status = name.removeprefix("thread.run.")
            status = "queued" if self.run_status == "created" else self.run_status
            check(data["status"] == status, f"{at}: the object is {data['status']}")
        else:
            check(name == "thread.created" and len(self.names) == 1, f"{at}: unexpected")

    def see_message(self, name, data, at):
        if name == "created":
            check(data["id"] not in self.messages, f"{at}: {data['id']} was created twice")
            check(self.open_message is None, f"{at}: {self.open_message} is still open")
            check(data["content"] == [], f"{at}: content must be empty")
            self.messages[data["id"]] = []
            self.open_message = data["id"]
            return
        check(self.open_message == data["id"], f"{at}: {data['id']} is not the open message")
        parts = self.messages[data["id"]]
        if name == "delta":
            for part in data["delta"].get("content") or []:
                check(part["index"] <= len(parts), f"{at}: index {part['index']} leaves a hole")
                if part["index"] == len(parts):
                    parts.append("")
                parts[part["index"]] += (part.get("text") or {}).get("value") or ""
        elif name in ("completed", "incomplete"):
            final = [(part.get("text") or {}).get("value", "") for part in data["content"]]
            check(final == parts, f"{at}: deltas and final text differ")
            self.open_message = None

    def see_step(self, name, data, at):
        if name == "created":
            check(data["id"] not in self.steps, f"{at}: {data['id']} was created twice")
            still_open = [step for step in self.steps.values() if step["is_open"]]
            check(still_open == [], f"{at}: a step is still open")
            self.steps[data["id"]] = {"type": data["type"], "calls": 0, "is_open": True}
            return
        step = self.steps.get(data["id"])
        if step is None and self.continues and name == "completed":
            return
        check(step is not None and step["is_open"], f"{at}: {data['id']} is not open")
        if name == "delta":
            for call in data["delta"]["step_details"].get("tool_calls") or []:
                check(call["index"] <= step["calls"], f"{at}: index {call['index']} leaves a hole")
                step["calls"] = max(step["calls"], call["index"] + 1)
        elif name != "in_progress":
            step["is_open"] = False

    def end(self):
        check(self.run_status in self.ENDS, f"no terminal event of the run: {self.names[-1:]}")
        check(self.open_message is None, f"message {self.open_message} was left open")
        names = self.names
        return {
            "events": [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name],
            "run_status": self.run_status,
            "step_types": [step["type"] for step in self.steps.values()],
        }


def prepare(assistant_body, content):
    assistant = assistants.create(model=MODEL, **assistant_body)
    return assistant, threads.create(messages=[user(content)])


def follow(stream, continues=False):
    rules = StreamRules(continues)
    for event in stream:
        rules.see(event.event, event.data.to_dict())
    return rules.end()


def check_completed(run):
    check(run.status == "completed", f"the run is {run.status}: {run.last_error}")
    equal(run.usage.total_tokens, run.usage.prompt_tokens + run.usage.completion_tokens)


def check_requires_action(run):
    check(run.status == "requires_action", f"the run is {run.status}: {run.last_error}")
    calls = run.required_action.submit_tool_outputs.tool_calls
    for call in calls:
        check(isinstance(json.loads(call.function.arguments), dict), call.function.arguments)
    return calls


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
