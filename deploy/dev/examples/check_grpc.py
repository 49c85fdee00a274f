"""Asks for a picture's verdict over gRPC and waits for it: python check_grpc.py HOST:PORT PICTURE."""

import os
import sys

from unmask.rpc.client import Client

address, picture = sys.argv[1:]
with Client(address, token=os.environ["UNMASK_TOKEN"]) as client:
    verdict = client.check(picture)
print(verdict.id, verdict.label, verdict.score, verdict.action)
