"""Submits a picture as the Celery task `unmask.submit`: python submit_celery.py ID PICTURE [CALLBACK]."""

import base64
import os
import sys
from pathlib import Path

from celery import Celery

upload, picture, *callback = sys.argv[1:]
app = Celery(broker=os.environ["UNMASK_BROKER"])
app.conf.broker_transport_options = {"confirm_publish": True}  # else RabbitMQ may lose it, and nobody is told
app.conf.task_create_missing_queue_type = "quorum"  # as the door declares its queue on RabbitMQ; from Celery 5.6 on
fields = {
    "token": os.environ["UNMASK_TOKEN"],
    "base64": base64.b64encode(Path(picture).read_bytes()).decode(),
    "idempotency_key": upload,  # sent twice it is still one case
    "callback": "".join(callback),
}
app.send_task("unmask.submit", kwargs=fields, queue="unmask.submit", ignore_result=True)
