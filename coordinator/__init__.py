"""The cloud side: tasks, registry of models, mailbox and blobs, management API.

It never sees a row, and never imports the gateway or a connector.
"""
