"""Takes signed events, prints each verified one: python webhook_receiver.py PORT SECRET (`unmask tenant secret TENANT`)."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

port, secret = sys.argv[1:]
webhook = Webhook(secret)


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 once the event is taken; anything else is sent again later, under the same webhook-id."""

    def do_POST(self) -> None:
        """Takes one event."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            webhook.verify(body, dict(self.headers))
            # One write a line: events that come at once share this output.
            sys.stdout.write(f"{body.decode()}\n")
            sys.stdout.flush()
            self.send_response(204)
        except WebhookVerificationError:
            self.send_response(400)
        self.end_headers()


ThreadingHTTPServer(("127.0.0.1", int(port)), Receiver).serve_forever()
