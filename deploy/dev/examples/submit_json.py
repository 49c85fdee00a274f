"""Submits a picture as plain JSON on the queue `unmask.submissions`: python submit_json.py ID PICTURE [CALLBACK]."""

import base64
import os
import sys
from pathlib import Path

from kombu import Connection

upload, picture, *callback = sys.argv[1:]
fields = {
    "token": os.environ["UNMASK_TOKEN"],
    "base64": base64.b64encode(Path(picture).read_bytes()).decode(),
    "idempotency_key": upload,  # sent twice it is still one case
    "callback": "".join(callback),
}
# Confirmed, persistent and mandatory: RabbitMQ has it on disk when this returns, or this raises.
with Connection(os.environ["UNMASK_BROKER"], transport_options={"confirm_publish": True}) as connection:
    connection.Producer().publish(fields, routing_key="unmask.submissions", serializer="json", delivery_mode=2, mandatory=True)
