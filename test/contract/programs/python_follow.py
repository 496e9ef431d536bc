"""Follows runs with the helpers of the official Python client, and prints one line of JSON with what they made of them:

    PYTHONPATH=<pip install --target directory> BASE_URL=http://127.0.0.1:3000/v1 API_KEY=sk-any \
        THREAD_ID=thread_1 ASSISTANT_ID=asst_1 python3 python_follow.py stream

`stream` follows a run by an AssistantEventHandler, and submits outputs where it asks for them; `poll` does the same with
`create_and_poll` and `submit_tool_outputs_and_poll`. EXTRA is JSON that goes into the body of the run.
"""

import json
import os
import sys
import warnings

from openai import AssistantEventHandler, OpenAI

# The clients call the Assistants API deprecated at every call; that is known here.
warnings.simplefilter("ignore", DeprecationWarning)

client = OpenAI(base_url=os.environ["BASE_URL"], api_key=os.environ["API_KEY"], timeout=60)
runs = client.beta.threads.runs
thread_id = os.environ["THREAD_ID"]
body = {
    "thread_id": thread_id,
    "assistant_id": os.environ["ASSISTANT_ID"],
    "extra_body": json.loads(os.environ.get("EXTRA", "{}")),
}


class Recorder(AssistantEventHandler):
    def __init__(self):
        super().__init__()
        self.events = []
        self.texts = []

    def on_event(self, event):
        # Deltas that follow each other are one: how a text is cut is the provider's business.
        if not (event.event.endswith(".delta") and self.events[-1] == event.event):
            self.events.append(event.event)

    def on_message_done(self, message):
        parts = [part.text.value for part in message.content if part.type == "text"]
        self.texts.append("".join(parts))


def follow(streaming, handler):
    with streaming as stream:
        stream.until_done()
    run = handler.get_final_run()
    return run, {"events": handler.events, "status": run.status, "texts": handler.texts}


def outputs_of(run):
    calls = run.required_action.submit_tool_outputs.tool_calls
    return [{"tool_call_id": call.id, "output": "rain"} for call in calls]


def stream():
    handler = Recorder()
    run, followed = follow(runs.stream(**body, event_handler=handler), handler)
    found = [followed]
    if run.status == "requires_action":
        handler = Recorder()
        streaming = runs.submit_tool_outputs_stream(
            run_id=run.id,
            thread_id=thread_id,
            tool_outputs=outputs_of(run),
            event_handler=handler,
        )
        found.append(follow(streaming, handler)[1])
    return found


def poll():
    run = runs.create_and_poll(**body)
    found = [run.status]
    if run.status == "requires_action":
        over = runs.submit_tool_outputs_and_poll(
            run_id=run.id, thread_id=thread_id, tool_outputs=outputs_of(run)
        )
        found.append(over.status)
    return found


print(json.dumps({"stream": stream, "poll": poll}[sys.argv[1]]()))
