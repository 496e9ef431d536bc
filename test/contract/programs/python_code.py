"""What a program with the official Python client does about code: it uploads tables, has them read, and downloads what comes
of them. Prints one line of JSON with what it saw, as node-code.mjs does:

    PYTHONPATH=<pip install --target directory> BASE_URL=http://127.0.0.1:3000/v1 API_KEY=sk-any python3 python_code.py

GENERATION=v1: the client is one of assistants=v1 (openai 1.3 to 1.20), whose files are `file_ids`.
"""

import base64
import json
import os
import time
import warnings

from openai import OpenAI

# The clients call the Assistants API deprecated at every call; that is known here.
warnings.simplefilter("ignore", DeprecationWarning)

IN_V1 = os.environ.get("GENERATION") == "v1"
TOOL = {"type": "code_interpreter"}
client = OpenAI(base_url=os.environ["BASE_URL"], api_key=os.environ["API_KEY"], timeout=30)
assistants = client.beta.assistants
threads = client.beta.threads


def upload(name, text):
    return client.files.create(file=(name, text.encode()), purpose="assistants").id


def download(file_id):
    file = client.files.retrieve(file_id)
    content = client.files.content(file_id).read()
    facts = {"filename": file.filename, "purpose": file.purpose, "bytes": file.bytes}
    return {**facts, "content": base64.b64encode(content).decode()}


def settled(run):
    while run.status in ("queued", "in_progress"):
        time.sleep(0.05)
        run = threads.runs.retrieve(run.id, thread_id=run.thread_id)
    return run


def with_file(file_id, of):
    """How a generation gives a file to an assistant, and to a message."""
    if IN_V1:
        return {"file_ids": [file_id]}
    if of == "message":
        return {"attachments": [{"file_id": file_id, "tools": [TOOL]}]}
    return {"tool_resources": {"code_interpreter": {"file_ids": [file_id]}}}


def files_of(message):
    if IN_V1:
        return message.file_ids
    return [attachment.file_id for attachment in message.attachments]


def output_of(output):
    if output.type == "logs":
        return {"logs": output.logs}
    return {"image": output.image.file_id}


january = upload("january.csv", "month,sales\nJan,3\n")
february = upload("february.csv", "month,sales\nFeb,5\n")
assistant = assistants.create(model="gpt-4o", tools=[TOOL], **with_file(january, "assistant"))
thread = threads.create()
question = threads.messages.create(
    thread.id, role="user", content="Sum it up.", **with_file(february, "message")
)
run = settled(threads.runs.create(thread.id, assistant_id=assistant.id))
steps = threads.runs.steps.list(run.id, thread_id=thread.id, order="asc").data
calls = [call for step in steps if step.type == "tool_calls" for call in step.step_details.tool_calls]
answer = threads.messages.list(thread.id).data[0]
[figure, words] = answer.content
[link] = words.text.annotations
print(
    json.dumps(
        {
            "status": run.status,
            "given": {"january": january, "february": february, "message": files_of(question)},
            "code": [call.code_interpreter.input for call in calls],
            "outputs": [output_of(one) for call in calls for one in call.code_interpreter.outputs],
            "parts": [part.type for part in answer.content],
            "figure": {"id": figure.image_file.file_id, **download(figure.image_file.file_id)},
            "words": words.text.value,
            "link": {
                "text": link.text,
                "marked": words.text.value[link.start_index : link.end_index],
                "id": link.file_path.file_id,
                **download(link.file_path.file_id),
            },
            "attached": [{"id": id, **download(id)} for id in files_of(answer)],
        }
    )
)
