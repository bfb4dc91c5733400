"""How members and aggregators work together: messages, mailbox, blobs, outbox, programs, rounds.

It never knows plant protocols or the console.
"""
