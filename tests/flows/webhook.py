"""A webhook on the loopback address, which stands for a chat."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace


class Webhook:
    """Keeps the messages that come in: subject and body."""

    def __init__(self):
        self.messages, here = [], self

        class Hook(BaseHTTPRequestHandler):
            def do_POST(self):
                length = int(self.headers["Content-Length"])
                here.messages.append(SimpleNamespace(**json.loads(self.rfile.read(length))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.web = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
        threading.Thread(target=self.web.serve_forever, args=(0.02,), daemon=True).start()

    def as_block(self):
        from prefect.blocks.notifications import CustomWebhookNotificationBlock

        CustomWebhookNotificationBlock(
            name="alarms",
            url=f"http://127.0.0.1:{self.web.server_port}/",
            json_data={"subject": "{{subject}}", "body": "{{body}}"},
        ).save("alarms")


@contextmanager
def webhook():
    """A webhook while the block runs."""
    hook = Webhook()
    try:
        yield hook
    finally:
        hook.web.shutdown()
        hook.web.server_close()
